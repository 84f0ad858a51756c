"""Labels for unlabeled keys, from their labeled neighbours in the queue."""

import math
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor

from .labels import UNLABELED

USES = ('ignore', 'positive')
_CHUNK_KEYS = 2**13


@dataclass(frozen=True)
class LabelPropagation:
    """Options of label propagation.

    An unlabeled key gets the label that at least ``threshold`` of its ``k``
    nearest labeled keys in the queue share, when it is enqueued. Propagated
    labels do not vote.

    Attributes:
        k (int): Number of neighbours. If the queue has fewer labeled keys,
            the missing ones count as votes against. Defaults to 20.
        threshold (float): Least share of the votes, more than 0.5 so there is
            one winner, at most 1. Defaults to 0.9.
        start (int): Batches before the first key gets a label, when features
            mean nothing yet. Defaults to 0.
        use (str): What such a key is to queries of its label: 'positive', or
            'ignore', left out of their negatives. To other queries it is a
            negative as before. Defaults to 'ignore'.

    Raises:
        ValueError: If a value is out of range.
    """

    k: int = 20
    threshold: float = 0.9
    start: int = 0
    use: str = 'ignore'

    def __post_init__(self) -> None:
        wrong = {
            'k must be an integer > 0': not _is(self.k, Integral)
            or self.k < 1,
            'threshold must be a number in (0.5, 1]': not _is(
                self.threshold, Real
            )
            or not 0.5 < self.threshold <= 1,
            'start must be an integer >= 0': not _is(self.start, Integral)
            or self.start < 0,
            f'use must be one of {USES}': self.use not in USES,
        }
        for text in (text for text, found in wrong.items() if found):
            name = text.split()[0]
            raise ValueError(
                f'UniMoCoHead.propagate_labels.{text}, but got '
                f'{getattr(self, name)!r}; change '
                f'model.head.propagate_labels.{name}'
            )

    @classmethod
    def from_config(cls, config: dict | None) -> 'LabelPropagation | None':
        """Build it from ``model.head.propagate_labels``; None is off."""
        if config is None:
            return None
        names = list(cls.__dataclass_fields__)
        if not isinstance(config, dict) or set(config) - set(names):
            raise ValueError(
                'UniMoCoHead.propagate_labels must be None or a dict of '
                f'{", ".join(names)}, but got {config!r}; change '
                'model.head.propagate_labels'
            )
        return cls(**config)

    @property
    def votes_needed(self) -> int:
        """Fewest votes that are ``threshold`` of k."""
        # 0.56 * 25 is a little more than 14.
        return math.ceil(self.threshold * self.k - 1e-6)

    @torch.no_grad()
    def __call__(
        self, keys: Tensor, key_labels: Tensor, queue: Tensor, labels: Tensor
    ) -> Tensor:
        """Find labels for unlabeled keys.

        Args:
            keys (Tensor): L2-normalised, shape (N, C).
            key_labels (Tensor): Their labels, shape (N,), -1 for unlabeled.
            queue (Tensor): Shape (K, C).
            labels (Tensor): Of the queue, shape (K,), -1 for unlabeled.

        Returns:
            Tensor: Shape (N,), int64; -1 for labeled keys, and for those
            whose neighbours do not agree.
        """
        with torch.autocast(device_type=keys.device.type, enabled=False):
            votes = nearest_labels(keys, queue, labels, self.k)
        # More than half of the votes includes the one in the middle.
        winner = votes.sort(dim=1).values[:, self.k // 2]
        count = (votes == winner.unsqueeze(1)).sum(dim=1)
        kept = (count >= self.votes_needed) & (key_labels == UNLABELED)
        return winner.masked_fill(~kept, UNLABELED)


def nearest_labels(
    keys: Tensor, queue: Tensor, labels: Tensor, k: int
) -> Tensor:
    """Return the labels of the ``k`` nearest labeled keys of the queue.

    Args:
        keys (Tensor): Shape (N, C).
        queue (Tensor): Shape (K, C).
        labels (Tensor): Of the queue, shape (K,), -1 for unlabeled.
        k (int): Number of neighbours.

    Returns:
        Tensor: Shape (N, k), int64; -1 where there are fewer labeled keys.
    """
    nearest = keys.new_full((len(keys), k), float('-inf'))
    found = labels.new_full((len(keys), k), UNLABELED)
    for rows, some in zip(
        queue.split(_CHUNK_KEYS), labels.split(_CHUNK_KEYS), strict=True
    ):
        scores = keys @ rows.T
        scores.masked_fill_(some == UNLABELED, float('-inf'))
        scores, places = scores.topk(min(k, len(rows)), dim=1)
        nearest, order = torch.cat([nearest, scores], 1).topk(k, dim=1)
        found = torch.cat([found, some[places]], 1).gather(1, order)
    return found


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
