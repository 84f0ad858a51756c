"""Which samples keep their label: class-balanced, nested, reproducible.

Rounding the share of each class cannot be balanced, nested and correct in
total at every ratio: with largest remainders a class may lose a label when
the total grows, and rounding each class on its own lets the total drift by
half an image per class. Instead, labels are handed out one at a time, in an
order that keeps every class next to its exact share throughout: the
just-in-time apportionment of Tijdeman (1980), Steiner and Yeomans (1993).
"""

import heapq
import math
from collections.abc import Sequence
from fractions import Fraction
from hashlib import blake2b

import numpy as np


def ratio_to_count(ratio: float, total: int) -> int:
    """Round ``ratio * total``, halves up; 0.3 means 3/10, not its double."""
    return math.floor(Fraction(str(float(ratio))) * total + Fraction(1, 2))


def balanced_counts(
    sizes: Sequence[int], total: int, priority: Sequence[int]
) -> np.ndarray:
    """Distribute ``total`` labels over classes of the given sizes.

    With N = sum(sizes), the K-th label is handed out when the ratio reaches
    (K - 1/2) / N. The j-th image of class c (from 0) may be labeled while the
    exact share of its class, ratio * n_c, is in [j, j + 1]. Earliest deadline
    first finds such an order, and one always exists: the images that only fit
    a run of m labels have their intervals strictly inside m + 1 units of
    N * ratio, and sum_c floor(n_c / N * (m + 1)), or less where that is
    whole, is at most m (Hall's theorem).

    Hence, for every real ratio, with total = round(ratio * N):
    abs(count_c - ratio * n_c) <= 1, the counts sum to ``total``, and no count
    decreases when the ratio increases.

    Args:
        sizes: Number of images of each class, all > 0.
        total: Labels to hand out, 0 <= total <= sum(sizes).
        priority: One number per class; among equally urgent classes the
            smallest goes first.

    Returns:
        np.ndarray: (len(sizes),) int64, labels of each class.
    """
    sizes = [int(size) for size in sizes]
    everything = sum(sizes)
    if total == everything:
        return np.array(sizes, np.int64)

    # Image j of class c may take the slots K with
    # j * N / n + 1/2 <= K <= (j + 1) * N / n + 1/2, in integer arithmetic.
    def first_slot(c: int, j: int) -> int:
        return -((-2 * j * everything - sizes[c]) // (2 * sizes[c]))

    def last_slot(c: int, j: int) -> int:
        return (2 * (j + 1) * everything + sizes[c]) // (2 * sizes[c])

    counts = [0] * len(sizes)
    waiting = [(first_slot(c, 0), c) for c in range(len(sizes))]
    heapq.heapify(waiting)
    ready = []
    for slot in range(1, total + 1):
        while waiting and waiting[0][0] <= slot:
            c = heapq.heappop(waiting)[1]
            deadline = last_slot(c, counts[c])
            heapq.heappush(ready, (deadline, int(priority[c]), c))
        c = heapq.heappop(ready)[2]
        counts[c] += 1
        if counts[c] < sizes[c]:
            heapq.heappush(waiting, (first_slot(c, counts[c]), c))
    return np.array(counts, np.int64)


def sample_keys(names: Sequence[str], seed: int) -> np.ndarray:
    """Return a fixed pseudo-random number for each sample.

    A hash of seed and name, not a random generator: it depends neither on the
    order of the samples, nor on numpy's version, nor on any global state.

    Returns:
        np.ndarray: (N,) uint64.
    """
    base = blake2b(f'{seed}\n'.encode(), digest_size=8)

    def digest(name: str) -> bytes:
        state = base.copy()
        state.update(name.encode('utf-8', 'surrogateescape'))
        return state.digest()

    joined = b''.join(digest(name) for name in names)
    return np.frombuffer(joined, dtype='>u8').astype(np.uint64)


def select_by_ratio(
    strata: np.ndarray, keys: np.ndarray, ratio: float
) -> np.ndarray:
    """Select the share ``ratio`` of the labeled samples.

    Each class orders its samples by key and keeps the first ones, as many as
    :func:`balanced_counts` gives it, so a selection at a smaller ratio is a
    subset of one at a larger ratio.

    Args:
        strata: (N,) int64, class of each sample, -1 if unlabeled.
        keys: (N,) uint64 from :func:`sample_keys`.
        ratio: In [0, 1], of the labeled samples.

    Returns:
        np.ndarray: (N,) bool, True where the label is kept.
    """
    keep = np.zeros(len(strata), dtype=bool)
    order = np.lexsort((keys, strata))
    order = order[np.searchsorted(strata[order], 0) :]
    if len(order) == 0:
        return keep
    starts, sizes = np.unique(
        strata[order], return_index=True, return_counts=True
    )[1:]
    counts = balanced_counts(
        sizes, ratio_to_count(ratio, len(order)), keys[order[starts]]
    )
    rank = np.arange(len(order)) - np.repeat(starts, sizes)
    keep[order[rank < np.repeat(counts, sizes)]] = True
    return keep
