"""Shuffled BN: each rank encodes key images of other ranks.

With plain BN, query and key of an image are normalised by statistics of the
same batch, which reveals which key belongs to which query (He et al., MoCo,
section 3.3). Shuffling the key images over the ranks removes the hint.
"""

from collections.abc import Callable

import torch
from mmengine.dist import get_rank
from torch import Tensor

from .collectives import exchange_integers, start_all_to_all, upload


class ShufflePlan:
    """Assignment of the images of one global batch to the ranks.

    The images of all ranks, in rank order, are permuted, and the result is
    split by the ranks' own batch sizes, so a rank encodes as many images as
    it contributes. Every image travels once, directly to the rank that needs
    it: a rank sends no more than its own batch, whatever the number of ranks
    (with all_gather it would be W - 1 times as much).

    Created by :meth:`draw`, which all ranks must call.

    Args:
        batch_sizes (list[int]): Batch size of every rank, in rank order.
        rank (int): This process.
        permutation (Tensor): (sum of batch_sizes,) int64 on the CPU, the
            same on all ranks: entry p is the image at position p of the
            permuted list.
        device (torch.device): Where the images are.
    """

    def __init__(
        self,
        batch_sizes: list[int],
        rank: int,
        permutation: Tensor,
        device: torch.device,
    ) -> None:
        self.batch_sizes = batch_sizes
        self.rank = rank
        self.permutation = permutation
        world_size = len(batch_sizes)
        ranks = torch.arange(world_size).repeat_interleave(
            torch.tensor(batch_sizes)
        )
        mine = ranks == rank
        positions = permutation.argsort()[mine]  # of this rank's images
        encoders = ranks[positions]
        owners = ranks[permutation][mine]  # of the images encoded here
        # Rows travel ordered by the rank at the other end and, within it, by
        # their position in the permuted list.
        self._outgoing = upload(positions.argsort(), device)
        self._incoming = upload(owners.argsort(stable=True), device)
        self._sends = encoders.bincount(minlength=world_size).tolist()
        self._receives = owners.bincount(minlength=world_size).tolist()

    @classmethod
    def draw(cls, batch_size: int, device: torch.device) -> 'ShufflePlan':
        """Draw a random plan for one batch; a collective call.

        Each rank draws a seed from torch's CPU generator and that of rank 0
        is used, so a run resumed with its generators restored shuffles as
        the uninterrupted one would. Only the hosts wait for each other.

        Args:
            batch_size (int): Number of images on this rank.
            device (torch.device): Where they are.

        Returns:
            ShufflePlan: With the same permutation on every rank.
        """
        seed = int(torch.randint(2**63 - 1, ()))
        messages = exchange_integers([batch_size, seed])
        generator = torch.Generator().manual_seed(messages[0][1])
        batch_sizes = [size for size, _ in messages]
        permutation = torch.randperm(sum(batch_sizes), generator=generator)
        return cls(batch_sizes, get_rank(), permutation, torch.device(device))

    def shuffle(self, x: Tensor) -> Tensor:
        """Exchange this rank's images for those it has to encode.

        Args:
            x (Tensor): (n, ...) images of this rank, any dtype.

        Returns:
            Tensor: (n, ...) this rank's part of the permuted list.

        Raises:
            ValueError: If n is not the batch size of the plan.
        """
        return self.start_shuffle(x, async_op=False)()

    @torch.no_grad()
    def start_shuffle(
        self, x: Tensor, async_op: bool = True
    ) -> Callable[[], Tensor]:
        """Start :meth:`shuffle` while the caller computes something else.

        Every rank must start and finish at the same point among its other
        collectives.

        Args:
            x (Tensor): As for :meth:`shuffle`; not to be written to until
                the exchange is finished.
            async_op (bool): Whether to return before it is finished.

        Returns:
            Callable: To be called once; waits, on a GPU without blocking the
            host, and returns what :meth:`shuffle` returns.

        Raises:
            ValueError: If n is not the batch size of the plan.
        """
        return self._exchange(
            x,
            self._outgoing,
            self._incoming,
            self._sends,
            self._receives,
            async_op,
        )

    @torch.no_grad()
    def restore(self, y: Tensor) -> Tensor:
        """Invert :meth:`shuffle` exactly, for the features of the images.

        Args:
            y (Tensor): (n, ...) in the order of :meth:`shuffle`'s output;
                any dtype and trailing shape.

        Returns:
            Tensor: (n, ...) for this rank's own images, in their order.

        Raises:
            ValueError: If n is not the batch size of the plan.
        """
        return self._exchange(
            y,
            self._incoming,
            self._outgoing,
            self._receives,
            self._sends,
            async_op=False,
        )()

    def _exchange(
        self,
        x: Tensor,
        send_order: Tensor,
        receive_order: Tensor,
        sends: list[int],
        receives: list[int],
        async_op: bool,
    ) -> Callable[[], Tensor]:
        """Send rows ``x[send_order]``; write arrivals to ``receive_order``."""
        if x.shape[0] != self.batch_sizes[self.rank]:
            raise ValueError(
                f'The shuffle was planned for {self.batch_sizes[self.rank]} '
                f'images of rank {self.rank}, but got {x.shape[0]}'
            )
        # In this order the rows of a channels-last batch are contiguous.
        channels_last = (
            x.dim() == 4
            and not x.is_contiguous()
            and x.is_contiguous(memory_format=torch.channels_last)
        )
        if channels_last:
            x = x.permute(0, 2, 3, 1)
        rows = x.index_select(0, send_order)
        if len(self.batch_sizes) > 1:
            arrive = start_all_to_all(rows, sends, receives, async_op)
        else:
            arrive = rows.detach

        @torch.no_grad()
        def finish() -> Tensor:
            arrived = arrive()
            out = torch.empty_like(arrived)
            out[receive_order] = arrived
            return out.permute(0, 3, 1, 2) if channels_last else out

        return finish
