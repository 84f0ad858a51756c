"""Triton kernels of :mod:`mmunimoco.models.fused_pass`.

GPUs multiply matrices of bfloat16 faster than any with the accuracy of
float32. So a float32 is split in two bfloat16, and of the products of their
halves the largest three are added: the error is 2^-16 of each product, 2^-24
in float32, 2^-8 in bfloat16. Sums are in float32.
"""

import torch
import triton
import triton.language as tl

# Rows of the partial sums of a split: maximum and total of three log-sums,
# number, sum and maximum of the positives, sum of all scores, number and sum
# of those left out.
SCALARS = tl.constexpr(12)
_LOWEST = tl.constexpr(torch.finfo(torch.float32).min / 2)


@triton.jit
def _halves(x):
    """Split float32 into two bfloat16, whose sum has 16 bits of it."""
    high = x.to(tl.bfloat16)
    return high, (x - high.to(tl.float32)).to(tl.bfloat16)


@triton.jit
def _add_product(a, b, b_low, total, SPLIT: tl.constexpr):
    """Return ``total + a @ b`` of float32, or of ``b`` split in halves."""
    if SPLIT:
        a_high, a_low = _halves(a)
        total = tl.dot(a_low, b, total)
        total = tl.dot(a_high, b_low, total)
        total = tl.dot(a_high, b, total)
    else:
        total = tl.dot(a, b, total, input_precision='ieee')
    return total


@triton.jit
def _log_sum(x, keys, low, maximum, total, weighted, SPLIT: tl.constexpr):
    """Add a tile of exponents ``x``, -inf for none, to running sums."""
    raised = tl.maximum(maximum, tl.max(x, axis=1))
    weights = tl.exp(x - raised[:, None])
    scale = tl.exp(maximum - raised)
    total = total * scale + tl.sum(weights, axis=1)
    weighted = weighted * scale[:, None]
    return raised, total, _add_product(weights, keys, low, weighted, SPLIT)


@triton.jit
def _store_log_sum(
    scalars,
    vectors,
    row,
    slot,
    rows,
    columns,
    count,
    dim,
    maximum,
    total,
    weighted,
):
    """Store running sums as two rows of scalars and one vector."""
    valid = rows < count
    tl.store(scalars + row * count + rows, maximum, mask=valid)
    tl.store(scalars + (row + 1) * count + rows, total, mask=valid)
    place = (slot * count + rows[:, None]) * dim + columns[None, :]
    mask = valid[:, None] & (columns[None, :] < dim)
    tl.store(vectors + place, weighted, mask=mask)


@triton.jit
def pass_kernel(
    query,
    keys,
    query_labels,
    key_labels,
    query_ids,
    key_ids,
    scalars,
    vectors,
    count,
    num_keys,
    dim,
    tiles,
    own_start,
    scale,
    factor,
    LABELED: tl.constexpr,
    IGNORE_UNLABELED: tl.constexpr,
    EXCLUDE_OWN: tl.constexpr,
    IN_BATCH: tl.constexpr,
    POSITIVE: tl.constexpr,
    INVERSE: tl.constexpr,
    MEAN: tl.constexpr,
    VECTORS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """Partial sums of BLOCK_N queries over ``tiles`` tiles of keys."""
    split = tl.program_id(1)
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = tl.arange(0, BLOCK_C)
    row_valid, column_valid = rows < count, columns < dim
    corners = query + rows[:, None] * dim + columns[None, :]
    mask = row_valid[:, None] & column_valid[None, :]
    q = tl.load(corners, mask=mask, other=0.0) * scale
    if SPLIT:
        q, q_low = _halves(q)
    labels = tl.load(query_labels + rows, mask=row_valid, other=-1)
    ids = tl.load(query_ids + rows, mask=row_valid, other=-1)

    zeros = tl.zeros((BLOCK_N,), tl.float32)
    maximum, total = zeros + _LOWEST, zeros
    weighted = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    positive_max, positive_total, positive_keys = maximum, total, weighted
    inverse_max, inverse_total, inverse_keys = maximum, total, weighted
    mean_keys = weighted
    num_positives, positive_sum, nearest = zeros, zeros, zeros + _LOWEST
    score_sum, num_ignored, ignored_sum = zeros, zeros, zeros

    for tile in range(tiles):
        places = (split * tiles + tile) * BLOCK_K + tl.arange(0, BLOCK_K)
        key_valid = places < num_keys
        k = tl.load(
            keys + places[:, None] * dim + columns[None, :],
            mask=key_valid[:, None] & column_valid[None, :],
            other=0.0,
        ).to(tl.float32)
        k_low = k
        if SPLIT:
            k, k_low = _halves(k)
            scores = tl.dot(q_low, tl.trans(k))
            scores = tl.dot(q, tl.trans(k_low), scores)
            scores = tl.dot(q, tl.trans(k), scores)
        else:
            scores = tl.dot(q, tl.trans(k), input_precision='ieee')
        valid = row_valid[:, None] & key_valid[None, :]
        score_sum += tl.sum(tl.where(valid, scores, 0.0), axis=1)
        negatives = valid
        if LABELED:
            seen = tl.load(key_labels + places, mask=key_valid, other=-1)
            same = labels[:, None] == seen[None, :]
            positives = valid & same & (labels[:, None] >= 0)
        if EXCLUDE_OWN:
            key_id = tl.load(key_ids + places, mask=key_valid, other=-1)
            own = valid & (ids[:, None] == key_id[None, :])
            own = own & (ids[:, None] >= 0)
            if LABELED:
                positives = positives & ~own
        if IN_BATCH:
            positives = positives & (
                places[None, :] != own_start + rows[:, None]
            )
        if IN_BATCH:
            ignored = valid & ~positives
        elif IGNORE_UNLABELED:
            unlabeled = (labels[:, None] >= 0) & (seen[None, :] < 0)
            ignored = valid & unlabeled
            if EXCLUDE_OWN:
                ignored = ignored | own
        elif EXCLUDE_OWN:
            ignored = own
        if IN_BATCH or IGNORE_UNLABELED or EXCLUDE_OWN:
            num_ignored += tl.sum(ignored.to(tl.float32), axis=1)
            ignored_sum += tl.sum(tl.where(ignored, scores, 0.0), axis=1)
            negatives = negatives & ~ignored
        if LABELED:
            negatives = negatives & ~positives
            num_positives += tl.sum(positives.to(tl.float32), axis=1)
            positive_sum += tl.sum(tl.where(positives, scores, 0.0), axis=1)
            picked = tl.where(positives, scores, float('-inf'))
            nearest = tl.maximum(nearest, tl.max(picked, axis=1))
            if POSITIVE >= 0:
                positive_max, positive_total, positive_keys = _log_sum(
                    picked * factor,
                    k,
                    k_low,
                    positive_max,
                    positive_total,
                    positive_keys,
                    SPLIT,
                )
            if INVERSE >= 0:
                x = tl.where(positives, -scores * factor, float('-inf'))
                inverse_max, inverse_total, inverse_keys = _log_sum(
                    x,
                    k,
                    k_low,
                    inverse_max,
                    inverse_total,
                    inverse_keys,
                    SPLIT,
                )
            if MEAN >= 0:
                mean_keys = _add_product(
                    positives.to(tl.float32), k, k_low, mean_keys, SPLIT
                )
        x = tl.where(negatives, scores, float('-inf'))
        maximum, total, weighted = _log_sum(
            x, k, k_low, maximum, total, weighted, SPLIT
        )

    scalars += split * SCALARS * count
    vectors += split.to(tl.int64) * VECTORS * count * dim
    _store_log_sum(
        scalars,
        vectors,
        0,
        0,
        rows,
        columns,
        count,
        dim,
        maximum,
        total,
        weighted,
    )
    if POSITIVE >= 0:
        _store_log_sum(
            scalars,
            vectors,
            2,
            POSITIVE,
            rows,
            columns,
            count,
            dim,
            positive_max,
            positive_total,
            positive_keys,
        )
    if INVERSE >= 0:
        _store_log_sum(
            scalars,
            vectors,
            4,
            INVERSE,
            rows,
            columns,
            count,
            dim,
            inverse_max,
            inverse_total,
            inverse_keys,
        )
    if MEAN >= 0:
        place = (MEAN * count + rows[:, None]) * dim + columns[None, :]
        mask = row_valid[:, None] & column_valid[None, :]
        tl.store(vectors + place, mean_keys, mask=mask)
    place = scalars + rows
    tl.store(place + 6 * count, num_positives, mask=row_valid)
    tl.store(place + 7 * count, positive_sum, mask=row_valid)
    tl.store(place + 8 * count, nearest, mask=row_valid)
    tl.store(place + 9 * count, score_sum, mask=row_valid)
    tl.store(place + 10 * count, num_ignored, mask=row_valid)
    tl.store(place + 11 * count, ignored_sum, mask=row_valid)


@triton.jit
def _total_of(scalars, index, row, count, splits, BLOCK_S: tl.constexpr):
    """Sum a row of scalars of one query over the splits."""
    total = 0.0
    for start in range(0, splits, BLOCK_S):
        parts = start + tl.arange(0, BLOCK_S)
        place = scalars + (parts * SCALARS + index) * count + row
        total += tl.sum(tl.load(place, mask=parts < splits, other=0.0))
    return total


@triton.jit
def _largest_of(scalars, index, row, count, splits, BLOCK_S: tl.constexpr):
    """Largest entry of a row of scalars of one query over the splits."""
    largest = _LOWEST * 1.0
    for start in range(0, splits, BLOCK_S):
        parts = start + tl.arange(0, BLOCK_S)
        place = scalars + (parts * SCALARS + index) * count + row
        values = tl.load(place, mask=parts < splits, other=_LOWEST)
        largest = tl.maximum(largest, tl.max(values))
    return largest


@triton.jit
def _merge_log_sum(
    scalars,
    vectors,
    index,
    slot,
    row,
    columns,
    count,
    dim,
    splits,
    own_score,
    own_total,
    own_key,
    VECTORS: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Merge running sums; returns maximum, total and weighted mean key."""
    maximum = _largest_of(scalars, index, row, count, splits, BLOCK_S)
    if own_total > 0:
        maximum = tl.maximum(maximum, own_score)
    own_weight = own_total * tl.exp(
        tl.where(own_total > 0, own_score, maximum) - maximum
    )
    total = own_weight
    weighted = own_weight * own_key
    column_valid = columns[None, :] < dim
    for start in range(0, splits, BLOCK_S):
        parts = start + tl.arange(0, BLOCK_S)
        valid = parts < splits
        place = scalars + (parts * SCALARS + index) * count + row
        top = tl.load(place, mask=valid, other=_LOWEST)
        part_total = tl.load(place + count, mask=valid, other=0.0)
        scale = tl.where(valid, tl.exp(top - maximum), 0.0)
        total += tl.sum(part_total * scale)
        place = (parts.to(tl.int64) * VECTORS + slot) * count + row
        part = tl.load(
            vectors + place[:, None] * dim + columns[None, :],
            mask=valid[:, None] & column_valid,
            other=0.0,
        )
        weighted += tl.sum(part * scale[:, None], axis=0)
    # Where anything was added the total is at least 1, up to rounding.
    return maximum, total, weighted / tl.maximum(total, 0.5)


@triton.jit
def _store_vector(means, slot, row, columns, count, dim, value):
    place = means + (slot * count + row) * dim + columns
    tl.store(place, value, mask=columns < dim)


@triton.jit
def merge_kernel(
    query,
    own_key,
    scalars,
    vectors,
    values,
    monitor,
    means,
    count,
    dim,
    splits,
    num_keys,
    temperature,
    factor,
    POSITIVE: tl.constexpr,
    INVERSE: tl.constexpr,
    MEAN: tl.constexpr,
    VECTORS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Merge the splits and the own key of one query."""
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK_C)
    inside = columns < dim
    q = tl.load(query + row * dim + columns, mask=inside, other=0.0)
    own = tl.load(own_key + row * dim + columns, mask=inside, other=0.0)
    score = tl.sum(q * own) / temperature
    step = 1 / temperature

    maximum, total, mean = _merge_log_sum(
        scalars,
        vectors,
        0,
        0,
        row,
        columns,
        count,
        dim,
        splits,
        0.0,
        0.0,
        own,
        VECTORS,
        BLOCK_S,
    )
    _store_vector(means, 0, row, columns, count, dim, mean * step)
    tl.store(values + row, tl.log(total) + maximum)
    nearest_negative = tl.where(total > 0, maximum, float('-inf'))
    if POSITIVE >= 0:
        maximum, total, mean = _merge_log_sum(
            scalars,
            vectors,
            2,
            POSITIVE,
            row,
            columns,
            count,
            dim,
            splits,
            score * factor,
            1.0,
            own,
            VECTORS,
            BLOCK_S,
        )
        tl.store(values + POSITIVE * count + row, tl.log(total) + maximum)
        _store_vector(
            means, POSITIVE, row, columns, count, dim, mean * (step * factor)
        )
    if INVERSE >= 0:
        maximum, total, mean = _merge_log_sum(
            scalars,
            vectors,
            4,
            INVERSE,
            row,
            columns,
            count,
            dim,
            splits,
            -score * factor,
            1.0,
            own,
            VECTORS,
            BLOCK_S,
        )
        tl.store(values + INVERSE * count + row, tl.log(total) + maximum)
        _store_vector(
            means, INVERSE, row, columns, count, dim, mean * (-step * factor)
        )

    others = _total_of(scalars, 6, row, count, splits, BLOCK_S)
    others_sum = _total_of(scalars, 7, row, count, splits, BLOCK_S)
    nearest = _largest_of(scalars, 8, row, count, splits, BLOCK_S)
    score_sum = _total_of(scalars, 9, row, count, splits, BLOCK_S)
    num_ignored = _total_of(scalars, 10, row, count, splits, BLOCK_S)
    ignored_sum = _total_of(scalars, 11, row, count, splits, BLOCK_S)
    num_positives = others + 1
    if MEAN >= 0:
        keys = own
        for start in range(0, splits, BLOCK_S):
            parts = start + tl.arange(0, BLOCK_S)
            index = (parts.to(tl.int64) * VECTORS + MEAN) * count + row
            part = tl.load(
                vectors + index[:, None] * dim + columns[None, :],
                mask=(parts < splits)[:, None] & inside[None, :],
                other=0.0,
            )
            keys += tl.sum(part, axis=0)
        weight = factor / num_positives
        average = (others_sum + score) * weight
        tl.store(values + MEAN * count + row, average)
        _store_vector(
            means, MEAN, row, columns, count, dim, keys * (weight * step)
        )
    negative_sum = score_sum - others_sum - ignored_sum
    nearest = tl.maximum(tl.maximum(nearest, score), nearest_negative)
    place = monitor + row
    tl.store(place, nearest * temperature)
    tl.store(place + count, nearest_negative * temperature)
    tl.store(place + 2 * count, (others_sum + score) * temperature)
    tl.store(place + 3 * count, negative_sum * temperature)
    tl.store(place + 4 * count, num_positives)
    tl.store(place + 5 * count, num_keys - others - num_ignored)
