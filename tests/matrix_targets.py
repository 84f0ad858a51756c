"""Targets of random problems, given as whole matrices."""

from mmunimoco.models.statistics import PairList


class MatrixTargets:
    """Serves parts of two bool matrices (N, M), either may be None.

    Args:
        positives (Tensor): Positives.
        ignored (Tensor): Neither positives nor negatives.
        listed (bool): Whether to list the positives.
    """

    def __init__(self, positives=None, ignored=None, listed=False):
        self._positives, self._ignored = positives, ignored
        self.listed = listed

    def pairs(self, part):
        if not self.listed or self._positives is None:
            return None
        columns, rows = self._positives[:, part].T.nonzero(as_tuple=True)
        return PairList(rows, columns)

    def positives(self, part):
        return None if self._positives is None else self._positives[:, part]

    def ignored(self, part):
        return None if self._ignored is None else self._ignored[:, part]
