"""Fit metrics to the classes there are, and hand them the scores of kNN."""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import print_log
from mmpretrain.evaluation import Accuracy
from mmpretrain.structures import DataSample
from torch import Tensor

from .features import labels_of


def process_scores(
    evaluator: Evaluator, samples: list[DataSample], scores: Tensor
) -> None:
    """Let the metrics process queries and their scores.

    mmpretrain's ``Accuracy`` gets the scores of the best classes alone.

    Args:
        evaluator (Evaluator): With the metrics.
        samples (list[DataSample]): n queries with ``gt_label``.
        scores (Tensor): Of all classes, shape (n, C), on the CPU.
    """
    others = []
    for metric in evaluator.metrics:
        if type(metric) is Accuracy:
            metric.process(None, _best_only(samples, scores, max(metric.topk)))
        else:
            others.append(metric)
    if not others:
        return
    for sample, score in zip(samples, scores, strict=True):
        # A view would pickle the scores of all when the samples of all
        # processes are collected.
        sample.set_pred_score(score.clone()).set_pred_label(score.argmax())
    predicted = [sample.to_dict() for sample in samples]
    for metric in others:
        metric.process(None, predicted)
    for sample in samples:
        sample.pop('pred_score')  # what a metric needs of it, it has kept


def _best_only(
    samples: list[DataSample], scores: Tensor, topk: int
) -> list[dict]:
    """Samples among whose classes are only the best ones, by rank.

    mmpretrain's ``Accuracy`` keeps the scores of all samples and looks only
    for the rank of the label, which is the same among the best classes.
    """
    best, classes = scores.topk(min(topk, scores.shape[1]), dim=1)
    hits = classes == labels_of(samples)[:, None]
    # Beyond the best there is one rank, which no prediction has.
    ranks = torch.where(hits.any(1), hits.int().argmax(1), best.shape[1])
    return [
        dict(pred_score=score.clone(), gt_label=rank)
        for score, rank in zip(best, ranks[:, None], strict=True)
    ]


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
