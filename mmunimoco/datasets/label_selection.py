"""Which samples keep their label: class-balanced, nested, repeatable.

Balanced *and* nested *and* of the right total at every ratio is more than
rounding each class can give: with largest remainders a class may lose a seat
when the total grows, and rounding each class alone lets the total drift by
half an image a class. Here the labels are handed out one by one, so that a
larger ratio only ever adds to a smaller one, in an order that keeps every
class next to its exact share all the way (the "just-in-time" apportionment of
Tijdeman 1980, and Steiner and Yeomans 1993).
"""

import heapq
import math
from collections.abc import Sequence
from fractions import Fraction
from hashlib import blake2b

import numpy as np


def ratio_to_count(ratio: float, total: int) -> int:
    """``ratio * total``, halves up; 0.3 is taken as 3/10, not as a double."""
    return math.floor(Fraction(str(float(ratio))) * total + Fraction(1, 2))


def balanced_counts(
    sizes: Sequence[int], total: int, priority: Sequence[int]
) -> np.ndarray:
    """Share ``total`` labels among classes of the given sizes.

    With N = sum(sizes), the K-th label is handed out at the moment when the
    ratio reaches (K - 1/2) / N. The j-th image of class c (from 0) may be
    labeled while the exact share of its class, ratio * n_c, is in [j, j + 1].
    Earliest deadline first finds such an order, and there always is one: the
    images that only fit a run of m labels have their intervals strictly
    inside m + 1 units of N * ratio, and sum_c floor(n_c / N * (m + 1)), or
    less where that is whole, is at most m (Hall's theorem).

    Hence, for every real ratio, with total = round(ratio * N):
    |count_c - ratio * n_c| <= 1, the counts add up to ``total``, and none of
    them falls when the ratio rises.

    Args:
        sizes: Images of each class, all > 0.
        total: Labels to hand out, 0 <= total <= sum(sizes).
        priority: One number a class; the smaller goes first where two
            classes are equally urgent.

    Returns:
        (len(sizes),) int64: labels of each class.
    """
    sizes = [int(size) for size in sizes]
    everything = sum(sizes)
    if total == everything:
        return np.array(sizes, np.int64)

    # Twice the time, in labels, keeps all bounds whole:
    # first slot  K >= j * N / n + 1/2, last slot K <= (j + 1) * N / n + 1/2.
    def first_slot(c, j):
        return -((-2 * j * everything - sizes[c]) // (2 * sizes[c]))

    def last_slot(c, j):
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


def sample_keys(identities: Sequence[str], seed: int) -> np.ndarray:
    """A lasting random number for each sample, from its identity and the seed.

    A hash rather than a random generator: it depends neither on the order
    of the samples, nor on numpy's version, nor on any global state.

    Returns:
        (N,) uint64.
    """
    base = blake2b(f'{seed}\n'.encode(), digest_size=8)

    def digest(identity):
        state = base.copy()
        state.update(identity.encode('utf-8', 'surrogateescape'))
        return state.digest()

    joined = b''.join(digest(identity) for identity in identities)
    return np.frombuffer(joined, dtype='>u8').astype(np.uint64)


def select_by_ratio(
    strata: np.ndarray, keys: np.ndarray, ratio: float
) -> np.ndarray:
    """Choose the share ``ratio`` of the samples that have a label.

    In each class the samples have one fixed order, by key; of it the first
    ones keep their label, as many as :func:`balanced_counts` gives. So the
    choice at a smaller ratio is part of the choice at a larger one.

    Args:
        strata: (N,) int64, the class of each sample, -1 without label.
        keys: (N,) uint64 of :func:`sample_keys`.
        ratio: In [0, 1], of the samples that have a label.

    Returns:
        (N,) bool, True where the label stays.
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
