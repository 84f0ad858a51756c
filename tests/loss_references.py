"""The losses written out by hand, one query and one key at a time.

Slow on purpose: Python loops over numbers in extended precision, sharing
nothing with the package.
"""

import numpy as np

NUMBER = np.longdouble


def _split(scores, positives):
    pos = [NUMBER(s) for s, p in zip(scores, positives, strict=True) if p]
    neg = [NUMBER(s) for s, p in zip(scores, positives, strict=True) if not p]
    return pos, neg


def unicon(scores, positives, mean=False):
    """log(1 + sum_n e^s * sum_p e^-s) of one query."""
    pos, neg = _split(scores, positives)
    a = sum((np.exp(s) for s in neg), NUMBER(0))
    b = sum((np.exp(-s) for s in pos), NUMBER(0))
    return np.log1p(a * b / (len(pos) if mean else 1))


def unicon_gradient(scores, positives):
    """Closed form: w e^s / A for negatives, -w e^-s / B for positives."""
    pos, neg = _split(scores, positives)
    a = sum((np.exp(s) for s in neg), NUMBER(0))
    b = sum((np.exp(-s) for s in pos), NUMBER(0))
    w = a * b / (1 + a * b)
    return [
        -w * np.exp(-NUMBER(s)) / b if p else w * np.exp(NUMBER(s)) / a
        for s, p in zip(scores, positives, strict=True)
    ]


def unicon_mean(scores, positives):
    """UniCon with the mean over the positives."""
    return unicon(scores, positives, mean=True)


def supcon_out(scores, positives):
    """Mean over the positives of -log softmax."""
    pos, neg = _split(scores, positives)
    everything = sum(np.exp(s) for s in pos + neg)
    return sum(-np.log(np.exp(s) / everything) for s in pos) / len(pos)


def supcon_in(scores, positives):
    """-log of the mean softmax of the positives."""
    pos, neg = _split(scores, positives)
    everything = sum(np.exp(s) for s in pos + neg)
    return -np.log(sum(np.exp(s) / everything for s in pos) / len(pos))


def _own_weights(positives, weight):
    """Weights of the positives, of mean 1; the own key comes first."""
    count = sum(map(bool, positives))
    if weight == 'balanced':
        weight = max(count - 1, 1)
    weights = [NUMBER(weight)] + [NUMBER(1)] * (count - 1)
    return [w * count / sum(weights) for w in weights]


def own_weighted(kind, weight):
    """A reference with a weight for the own key.

    Args:
        kind (str): 'unicon', 'unicon-mean', 'supcon-out' or 'supcon-in'.
        weight (float | str): Relative to each other positive; 'balanced'
            for all others together.
    """

    def reference(scores, positives):
        pos, neg = _split(scores, positives)
        weights = _own_weights(positives, weight)
        weighted = list(zip(weights, pos, strict=True))
        if kind.startswith('unicon'):
            a = sum((np.exp(s) for s in neg), NUMBER(0))
            b = sum(w * np.exp(-s) for w, s in weighted)
            return np.log1p(a * b / (len(pos) if 'mean' in kind else 1))
        everything = sum(np.exp(s) for s in pos + neg)
        if kind == 'supcon-out':
            logs = (w * np.log(np.exp(s) / everything) for w, s in weighted)
            return -sum(logs) / len(pos)
        inside = sum(w * np.exp(s) / everything for w, s in weighted)
        return -np.log(inside / len(pos))

    return reference


def info_nce(scores, positives):
    """-log softmax of column 0, whatever else is positive."""
    everything = sum(np.exp(NUMBER(s)) for s in scores)
    return -np.log(np.exp(NUMBER(scores[0])) / everything)


def batch_mean(reference, logits, positives):
    """Mean of a reference over the rows, as float."""
    rows = zip(logits.tolist(), positives.tolist(), strict=True)
    losses = [reference(scores, mask) for scores, mask in rows]
    return float(sum(losses) / len(losses))
