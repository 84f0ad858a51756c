"""What a config asks for, compared with the data and the machine."""

import logging
from collections.abc import Iterable
from typing import Any

from mmengine.logging import print_log


def fit_topk(owners: Iterable[Any], num_classes: Any, field: str) -> None:
    """Leave out top-k accuracies of more classes than there are.

    mmpretrain's ``Accuracy`` stops at the first validation otherwise. Top-1 is
    always kept.

    Args:
        owners (Iterable): Metrics, or a head; only those with a sequence
            ``topk`` count, which is changed in place.
        num_classes (Any): Number of classes; other than an int is ignored.
        field (str): Their field in the config.
    """
    if not isinstance(num_classes, int):
        return
    for owner in owners:
        topk = getattr(owner, 'topk', None)
        if not isinstance(topk, tuple | list) or max(topk) <= num_classes:
            continue
        owner.topk = tuple(k for k in topk if k <= num_classes) or (1,)
        print_log(
            f'{field}: there are {num_classes} classes, so of topk='
            f'{tuple(topk)} only {owner.topk} is computed.',
            logger='current',
            level=logging.WARNING,
        )
