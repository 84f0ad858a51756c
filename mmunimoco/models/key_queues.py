"""The queues of keys and of what is known about them, as buffers."""

from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor
from torch.nn import functional

from .labels import UNLABELED, SampleLabels, mark_older


class KeyQueues(BaseModule):
    """Base of the head: queues that hold the newest K keys.

    Args:
        feat_dim (int): Dimension C of the keys.
        queue_len (int): Number of keys K.
        num_classes (int, optional): Width of multi-hot labels; None for one
            label a key. Defaults to None.
        with_indices (bool): Whether to keep the identity of images.
        with_propagated (bool): Whether to keep propagated labels.
        with_steps (bool): Whether to count the batches.
        init_cfg (dict, optional): Initialization config. Defaults to None.

    Attributes:
        queue (Tensor): L2-normalised keys, shape (K, C).
        label_queue (Tensor): Shape (K,), int64, -1 for unlabeled; or
            (K, num_classes), bool.
        queue_ptr (Tensor): The next row to write, shape (1,), int64.
        index_queue (Tensor): Shape (K,), int64, -1 for unknown.
        propagated_queue (Tensor): Propagated labels of unlabeled keys, shape
            (K,), int64, -1 for none.
        steps (Tensor): Batches so far, int64 scalar.
    """

    def __init__(
        self,
        feat_dim: int,
        queue_len: int,
        num_classes: int | None = None,
        with_indices: bool = False,
        with_propagated: bool = False,
        with_steps: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        # Its own generator, because all ranks must start with the same queue
        # whatever their seeds.
        generator = torch.Generator().manual_seed(0)
        keys = torch.randn(
            queue_len, feat_dim, generator=generator, device='cpu'
        )
        keys = functional.normalize(keys, dim=1)
        labels = torch.full((queue_len,), UNLABELED)
        if num_classes is not None:
            labels = torch.zeros(queue_len, num_classes).bool()
        self.register_buffer('queue', keys.to(labels.device))
        self.register_buffer('label_queue', labels)
        self.register_buffer('queue_ptr', torch.zeros(1, dtype=torch.int64))
        # What an attribute of SampleLabels is kept in.
        self._queues = dict(labels='label_queue')
        if with_indices:
            self._queues['indices'] = 'index_queue'
        if with_propagated:
            self._queues['propagated'] = 'propagated_queue'
        for name in list(self._queues.values())[1:]:
            self.register_buffer(name, torch.full((queue_len,), UNLABELED))
        if with_steps:
            self.register_buffer('steps', torch.tensor(0))
        # Copy of `steps` on the host; None until it is read.
        self._host_steps: int | None = None

    @property
    def feat_dim(self) -> int:
        """Dimension C of the keys."""
        return self.queue.shape[1]

    @property
    def queue_len(self) -> int:
        """Number of keys K in the queue."""
        return len(self.queue)

    def step_count(self) -> int:
        """Batches so far; waits for the device once after loading."""
        if self._host_steps is None:
            self._host_steps = int(self.steps)
        return self._host_steps

    def key_labels(
        self, use_propagated: str | None, max_positives: int | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the labels of the keys, propagated ones among them.

        Args:
            use_propagated (str, optional): 'positive' or 'ignore', see
                ``LabelPropagation``; None if there are none.
            max_positives (int, optional): Keys of a class that are positives.

        Returns:
            tuple[Tensor, Tensor | None]: Labels as in ``label_queue``; and
            the keys that are left out where they would be positives, shape
            (K,), bool, or None.
        """
        labels, never_positive = self.label_queue, None
        if use_propagated is not None:
            unlabeled = labels == UNLABELED
            labels = torch.where(unlabeled, self.propagated_queue, labels)
            if use_propagated == 'ignore':
                never_positive = unlabeled
        if max_positives is not None:
            counted = labels
            if never_positive is not None:
                counted = labels.masked_fill(never_positive, UNLABELED)
            older = mark_older(counted, self.queue_ptr, max_positives)
            if never_positive is not None:
                older = older | never_positive
            never_positive = older
        return labels, never_positive

    @torch.no_grad()
    def enqueue(self, keys: Tensor, samples: SampleLabels) -> None:
        """Write a batch over the oldest keys, wrapping around.

        A key that is not finite is dropped and the old one stays: as a
        negative of every query it would spoil all losses until overwritten.

        Args:
            keys (Tensor): L2-normalised, shape (N, C).
            samples (SampleLabels): Of the keys, with what the queues keep.
        """
        rows = torch.arange(len(keys), device=keys.device) + self.queue_ptr
        rows = rows[-self.queue_len :] % self.queue_len
        written = [(self.queue, keys)]
        written += [
            (getattr(self, queue), getattr(samples, name))
            for name, queue in self._queues.items()
        ]
        finite = keys[-self.queue_len :].isfinite().all(dim=1)
        for queue, new in written:
            new = new[-self.queue_len :]
            mask = finite.reshape(-1, *[1] * (new.dim() - 1))
            queue[rows] = torch.where(mask, new, queue[rows])
        self.queue_ptr += len(keys)
        self.queue_ptr %= self.queue_len

    def count_step(self) -> None:
        """Count a batch, if anything depends on the number of them."""
        if hasattr(self, 'steps'):
            self._host_steps = self.step_count() + 1
            self.steps += 1

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        # The checkpoint has its own count; read it at the next step.
        super()._load_from_state_dict(*args, **kwargs)
        self._host_steps = None
