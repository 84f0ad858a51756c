"""Shuffled BN: encode images of other ranks, so that BN statistics leak not.

With plain BN, query and key of an image are normalised by statistics of the
same batch, which tells which key belongs to which query (He et al., MoCo,
section 3.3). Shuffling the keys' images over the ranks removes the hint.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from mmengine.dist import get_rank
from torch import Tensor

from .comm import (
    as_bytes,
    collective_device,
    exchange_integers,
    from_bytes,
    upload,
)


class ShufflePlan:
    """Which rank encodes which image of one global batch.

    All images of all ranks, in rank order, are permuted, and the permuted
    list is cut into the ranks' own batch sizes: rank r encodes as many
    images as it brought. Every image travels once, straight to the rank that
    needs it, so a rank sends no more than its own batch whatever the number
    of ranks (an all_gather sends W - 1 times as much).

    Made by :meth:`draw`, which all ranks must call.

    Args:
        batch_sizes (list[int]): Batch size of every rank, in rank order.
        rank (int): This process.
        permutation (Tensor): (sum of batch_sizes,) int64 on the CPU, the
            same on all ranks: entry p is the image at place p of the
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
        places = permutation.argsort()[mine]  # where own images go to
        encoders = ranks[places]
        owners = ranks[permutation][mine]  # of the images to encode here
        # Rows travel ordered by the rank at the other end and, for each, by
        # their place in the permuted list.
        self._outgoing = upload(places.argsort(), device)
        self._incoming = upload(owners.argsort(stable=True), device)
        self._sends = encoders.bincount(minlength=world_size).tolist()
        self._receives = owners.bincount(minlength=world_size).tolist()

    @classmethod
    def draw(cls, batch_size: int, device: torch.device) -> 'ShufflePlan':
        """Draw a plan for one batch; a collective call.

        Each rank draws one seed from torch's CPU generator; that of rank 0
        counts. So a run resumed with its generators restored shuffles as the
        uninterrupted one would. The hosts tell each other seed and batch
        sizes, and wait for no device.

        Args:
            batch_size (int): Number of images that this rank brings.
            device (torch.device): Where they are.

        Returns:
            ShufflePlan: The plan, of the same permutation on every rank.
        """
        seed = int(torch.randint(2**63 - 1, ()))
        messages = exchange_integers([batch_size, seed])
        generator = torch.Generator().manual_seed(messages[0][1])
        batch_sizes = [size for size, _ in messages]
        permutation = torch.randperm(sum(batch_sizes), generator=generator)
        return cls(batch_sizes, get_rank(), permutation, torch.device(device))

    @torch.no_grad()
    def shuffle(self, x: Tensor) -> Tensor:
        """Hand over this rank's images for those it has to encode.

        Args:
            x (Tensor): (n, ...) images of this rank, any dtype.

        Returns:
            Tensor: (n, ...) images of all ranks, this rank's cut of the
            permuted list.

        Raises:
            ValueError: If n is not the batch size of the plan.
        """
        return self.start_shuffle(x, in_background=False)()

    @torch.no_grad()
    def start_shuffle(
        self, x: Tensor, in_background: bool = True
    ) -> Callable[[], Tensor]:
        """Begin :meth:`shuffle` while the caller computes something else.

        Every rank must begin, and finish, at the same point among its other
        collectives.

        Args:
            x (Tensor): As for :meth:`shuffle`; not to be written to before
                the end.
            in_background (bool): False has the images here on return.

        Returns:
            Callable: Finishes it, called once: waits for the images, on a
            GPU without blocking the host, and returns what
            :meth:`shuffle` returns.

        Raises:
            ValueError: If n is not the batch size of the plan.
        """
        return self._start_travel(
            x,
            self._outgoing,
            self._incoming,
            self._sends,
            self._receives,
            in_background,
        )

    @torch.no_grad()
    def restore(self, y: Tensor) -> Tensor:
        """Exact inverse of :meth:`shuffle` for what was made of the images.

        Args:
            y (Tensor): (n, ...) results in the order of :meth:`shuffle`'s
                output; any dtype and trailing shape.

        Returns:
            Tensor: (n, ...) results for this rank's own images, in their
            own order.

        Raises:
            ValueError: If n is not the batch size of the plan.
        """
        return self._start_travel(
            y, self._incoming, self._outgoing, self._receives, self._sends
        )()

    def _start_travel(
        self,
        x: Tensor,
        take: Tensor,
        put: Tensor,
        sends: list[int],
        receives: list[int],
        in_background: bool = False,
    ) -> Callable[[], Tensor]:
        """Send rows ``x[take]``; what arrives becomes the rows ``put``."""
        if x.shape[0] != self.batch_sizes[self.rank]:
            raise ValueError(
                f'The shuffle was planned for {self.batch_sizes[self.rank]} '
                f'images of rank {self.rank}, got {x.shape[0]}.'
            )
        # The rows of a channels-last batch lie together in that order only.
        channels_last = (
            x.dim() == 4
            and not x.is_contiguous()
            and x.is_contiguous(memory_format=torch.channels_last)
        )
        if channels_last:
            x = x.permute(0, 2, 3, 1)
        rows = x.index_select(0, take)
        if len(self.batch_sizes) > 1:
            arrive = _start_all_to_all(rows, sends, receives, in_background)
        else:
            arrive = rows.detach

        @torch.no_grad()
        def finish() -> Tensor:
            arrived = arrive()
            out = torch.empty_like(arrived)
            out[put] = arrived
            return out.permute(0, 3, 1, 2) if channels_last else out

        return finish


def _start_all_to_all(
    rows: Tensor, sends: list[int], receives: list[int], in_background: bool
) -> Callable[[], Tensor]:
    """Exchange rows, ``sends[r]`` of them to rank r, ``receives[r]`` from it.

    The rows travel as bytes: gloo has no all_to_all for bool and bfloat16.
    """
    sent = as_bytes(rows).to(collective_device(rows.device))
    arrived = torch.empty_like(sent)
    options = dict(async_op=True) if in_background else {}
    work = dist.all_to_all_single(arrived, sent, receives, sends, **options)

    def finish() -> Tensor:
        if work is not None:
            work.wait()
        return from_bytes(arrived, like=rows)

    return finish
