"""Running log-sum-exp over chunks of keys, with its gradient."""

import math

import torch
from torch import Tensor

from .statistics import PairList

LOG2_E = math.log2(math.e)


class RunningLogSum:
    r"""Accumulates :math:`\log \sum_j e^{x_{ij}}` and the key it pulls to.

    The mean key :math:`\sum_j e^{x_{ij}} k_j / \sum_j e^{x_{ij}}` is the
    gradient of the log-sum with respect to a query whose scores are
    :math:`x_{ij} = q_i \cdot k_j`, so one pass over the keys gives value and
    gradient. A running maximum keeps every exponential in range, as in online
    softmax (arXiv 1805.02867).

    Args:
        num_rows (int): Number of queries N.
        dim (int): Dimension C of the keys.
        like (Tensor): Gives dtype and device.
    """

    def __init__(self, num_rows: int, dim: int, like: Tensor) -> None:
        # Finite, to base 2 too: a row that has seen nothing stays without NaN.
        lowest = torch.finfo(like.dtype).min / 2
        self._maximum = like.new_full((num_rows,), lowest)
        self.total = like.new_zeros(num_rows)
        self.weighted = like.new_zeros(num_rows, dim)

    def add(self, scores: Tensor, keys: Tensor, scale: float = 1.0) -> None:
        """Add a chunk of keys.

        Args:
            scores (Tensor): Shape (N, B); an entry that ``scale`` turns into
                ``-inf`` is left out. Overwritten: the chunk is the largest
                tensor around.
            keys (Tensor): Shape (B, C).
            scale (float): Multiplies the scores. Defaults to 1.
        """
        largest = scores.amax(dim=1) if scale > 0 else scores.amin(dim=1)
        shift = self._raise_maximum(largest * scale)
        # Scaled and shifted in one pass, to base 2: on a CPU, torch's exp2
        # takes a third of the time of its exp.
        offset = (-LOG2_E * shift).unsqueeze(1)
        torch.add(offset, scores, alpha=LOG2_E * scale, out=scores)
        weights = scores.exp2_()
        self.total += weights.sum(dim=1)
        self.weighted.addmm_(weights, keys)

    def start(self, scores: Tensor, keys: Tensor) -> None:
        """Begin with one key for each query.

        Args:
            scores (Tensor): Shape (N,).
            keys (Tensor): Shape (N, C).
        """
        self._maximum = scores.clone()
        self.total.fill_(1)
        self.weighted.copy_(keys)

    def add_pairs(self, pairs: PairList, scores: Tensor, keys: Tensor) -> None:
        """Add single entries of a chunk, the sparse form of :meth:`add`.

        Args:
            pairs (PairList): E pairs, in the order of their queries.
            scores (Tensor): Of each pair, shape (E,).
            keys (Tensor): Of the chunk, shape (B, C).
        """
        rows = pairs.rows
        maximum = self._maximum.scatter_reduce(0, rows, scores, 'amax')
        shift = self._raise_maximum(maximum)
        weights = (scores - shift[rows]).exp_()
        self.total.index_add_(0, rows, weights)
        self.weighted += pairs.sum_keys(keys, len(maximum), weights)

    def _raise_maximum(self, maximum: Tensor) -> Tensor:
        """Rescale the sums to a new maximum, and return it; never inf."""
        maximum = torch.maximum(self._maximum, maximum)
        scale = (self._maximum - maximum).exp_()
        self.total *= scale
        self.weighted *= scale.unsqueeze(1)
        self._maximum = maximum
        return maximum

    @property
    def maximum(self) -> Tensor:
        """Largest score, shape (N,); ``-inf`` where nothing was added."""
        return self._maximum.masked_fill(self.total == 0, float('-inf'))

    @property
    def value(self) -> Tensor:
        """The log-sum, shape (N,); ``-inf`` where nothing was added."""
        return self.total.log() + self._maximum

    @property
    def mean_key(self) -> Tensor:
        """Weighted mean key, shape (N, C); zero where nothing was added."""
        # The largest has weight 1, but for rounding: less is that of nothing.
        return self.weighted / self.total.clamp(min=0.5).unsqueeze(1)
