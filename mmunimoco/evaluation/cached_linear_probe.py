"""A linear probe on cached features, for quick comparisons.

Not the published linear probe: the features are extracted once, without
augmentation, and a regularized logistic regression is fitted. It takes one
pass over the data instead of a hundred epochs and is deterministic, but its
numbers must not be compared with published ones.
"""

import logging

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.model import initialize
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils import track_iter_progress
from mmpretrain.evaluation import Accuracy
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from mmunimoco.datasets.class_names import check_classes_agree
from mmunimoco.utils.config_errors import named_field

from .features import (
    count_not_finite,
    evaluating,
    extract_batch,
    labels_of,
    not_finite_text,
)

PROTOCOL = 'linear probe on cached features, not the published linear probe'


def probe_checkpoint(
    cfg: Config, checkpoint: str, l2: float = 1e-3, max_iter: int = 300
) -> dict:
    """Probe the backbone of a checkpoint.

    Args:
        cfg (Config): A config with a kNN test (any pre-training config, or
            configs/benchmarks/classification/*-knn_*): the classifier is
            fitted to ``test_cfg.bank_dataloader`` and evaluated on
            ``test_dataloader``.
        checkpoint (str): Path or URL of a checkpoint with ``backbone.*``.
        l2 (float): See :func:`fit_linear`. Defaults to 1e-3.
        max_iter (int): See :func:`fit_linear`. Defaults to 300.

    Returns:
        dict: ``protocol``, ``top1`` and ``top5`` in percent (top5 only with
        more than five classes), ``train_top1``, ``train_samples``,
        ``test_samples``, ``feature_dim``, ``num_classes``, ``l2``, the number
        of ``iterations``, and whether it ``converged``; if not, it warns.

    Raises:
        ValueError: If the config has no kNN test, the checkpoint lacks
            parameters of the backbone, no sample has a label, class ids of
            both datasets do not mean the same, or ``l2`` or ``max_iter`` is
            out of range.
    """
    # Before minutes of extracting features.
    _check_fit(l2, max_iter)
    if (cfg.get('test_cfg') or {}).get('bank_dataloader') is None:
        raise ValueError(
            'the config has no test_cfg.bank_dataloader, on which the probe '
            'is trained; use a config with test_cfg=dict(type="KNNTestLoop", '
            '...).'
        )
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    model = load_backbone(cfg, checkpoint).to(get_device())
    with named_field('test_cfg.bank_dataloader'):
        train_loader = _build_loader(cfg.test_cfg.bank_dataloader)
    with named_field('test_dataloader'):
        test_loader = _build_loader(cfg.test_dataloader)
    check_classes_agree(
        {
            'test_cfg.bank_dataloader.dataset': train_loader.dataset,
            'test_dataloader.dataset': test_loader.dataset,
        }
    )
    with named_field('test_cfg.bank_dataloader'):
        train, train_labels = extract_features(model, train_loader)
    with named_field('test_dataloader'):
        test, test_labels = extract_features(model, test_loader)
    return cached_linear_probe(
        train, train_labels, test, test_labels, l2, max_iter
    )


def cached_linear_probe(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    l2: float = 1e-3,
    max_iter: int = 300,
) -> dict:
    """Fit a linear classifier to features and evaluate it on others.

    Args:
        train (Tensor): (N, D) float.
        train_labels (Tensor): (N,) int64, all at least 0.
        test (Tensor): (M, D) float.
        test_labels (Tensor): (M,) int64, all at least 0.
        l2 (float): See :func:`fit_linear`. Defaults to 1e-3.
        max_iter (int): See :func:`fit_linear`. Defaults to 300.

    Returns:
        dict: As :func:`probe_checkpoint`.
    """
    num_classes = 1 + int(max(train_labels.max(), test_labels.max()))
    train, test = standardize(train, test)
    classifier, iterations, converged = _fit(
        train, train_labels, num_classes, l2, max_iter
    )
    if not converged:
        print_log(
            f'The linear probe stopped after {iterations} iterations, before '
            f'it converged, at the limit of max_iter={max_iter}: its result '
            'depends on this limit. Raise it, or l2.',
            logger='current',
            level=logging.WARNING,
        )
    topk = (1, 5) if num_classes > 5 else (1,)
    with torch.no_grad():
        scores = classifier(test.to(classifier.weight))
        fitted = classifier(train.to(classifier.weight))
    accuracy = Accuracy.calculate(scores.cpu(), test_labels, topk, (None,))
    own = Accuracy.calculate(fitted.cpu(), train_labels, (1,), (None,))
    return {
        'protocol': PROTOCOL,
        **{
            f'top{k}': float(value[0])
            for k, value in zip(topk, accuracy, strict=True)
        },
        'train_top1': float(own[0][0]),
        'train_samples': len(train),
        'test_samples': len(test),
        'feature_dim': train.shape[1],
        'num_classes': num_classes,
        'l2': l2,
        'iterations': iterations,
        'converged': converged,
    }


def standardize(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and scale features to mean 0 and std 1 on ``train``.

    Args:
        train (Tensor): (N, D) float.
        test (Tensor): (M, D) float.

    Returns:
        tuple[Tensor, Tensor]: Both, by the statistics of ``train``; features
        that are constant there are only shifted.
    """
    mean = train.mean(dim=0)
    std = train.std(dim=0, unbiased=False)
    constant = std <= 1e-6 * std.max().clamp(min=1e-12)
    std = torch.where(constant, torch.ones_like(std), std)
    return (train - mean) / std, (test - mean) / std


def fit_linear(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    l2: float = 1e-3,
    max_iter: int = 300,
) -> nn.Linear:
    """Multinomial logistic regression by L-BFGS, from zero weights.

    Minimizes ``cross_entropy + l2 / 2 * |W|^2``, without a penalty on
    the bias. The problem is convex: the result does not depend on a seed.
    It may stop at ``max_iter``, before it has converged.

    Args:
        features (Tensor): (N, D) float.
        labels (Tensor): (N,) int64 in [0, num_classes).
        num_classes (int): Number of classes C.
        l2 (float): Weight of the penalty, at least 0. Defaults to 1e-3.
        max_iter (int): Maximum number of iterations; 5/4 as many evaluations
            of the loss are another limit. Defaults to 300.

    Returns:
        nn.Linear: The classifier, D to C, with device and dtype of the
        features.

    Raises:
        ValueError: If l2 is negative or max_iter is not positive.
    """
    return _fit(features, labels, num_classes, l2, max_iter)[0]


def _fit(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    l2: float,
    max_iter: int,
) -> tuple[nn.Linear, int, bool]:
    """The classifier, the number of iterations, and whether it converged."""
    _check_fit(l2, max_iter)
    classifier = nn.Linear(features.shape[1], num_classes).to(features)
    nn.init.zeros_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    labels = labels.to(features.device)
    optimizer = torch.optim.LBFGS(
        classifier.parameters(),
        max_iter=max_iter,
        tolerance_grad=1e-7,
        tolerance_change=1e-10,
        history_size=20,
        line_search_fn='strong_wolfe',
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = classifier.weight.square().sum() * (l2 / 2)
        loss = cross_entropy(classifier(features), labels) + penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    state, limits = optimizer.state[classifier.weight], optimizer.defaults
    # It also stops at a number of evaluations of the loss, max_eval.
    converged = (
        state['n_iter'] < max_iter and state['func_evals'] < limits['max_eval']
    )
    return classifier, state['n_iter'], converged


def _check_fit(l2: float, max_iter: int) -> None:
    if not l2 >= 0 or max_iter < 1:  # NaN is neither
        raise ValueError(
            f'l2 must be at least 0 and max_iter at least 1, got {l2} and '
            f'{max_iter}.'
        )


def extract_features(
    model: nn.Module, loader: DataLoader
) -> tuple[Tensor, Tensor]:
    """Extract the pooled features of all labeled samples of a data loader.

    Args:
        model (nn.Module): As for :func:`~.features.extract_batch`.
        loader (DataLoader): Returns batches of single views.

    Returns:
        tuple[Tensor, Tensor]: (N, D) float32 features on the model's device
        and (N,) int64 labels on the CPU.

    Raises:
        ValueError: If no sample has a label, or features are not finite.
    """
    features, labels = [], []
    with evaluating(model):
        for data_batch in track_iter_progress((iter(loader), len(loader))):
            batch_features, samples = extract_batch(model, data_batch)
            batch_labels = labels_of(samples)
            known = batch_labels >= 0
            features.append(batch_features[known.to(batch_features.device)])
            labels.append(batch_labels[known])
    labels = torch.cat(labels)
    if len(labels) == 0:
        raise ValueError(
            'no sample has a label; the linear probe needs data loaders with '
            'labeled data sets.'
        )
    features = torch.cat(features)
    bad = count_not_finite(features)
    if bad:
        raise ValueError(not_finite_text(bad))
    return features, labels


def load_backbone(cfg: Config, checkpoint: str) -> nn.Module:
    """Build the model of a config with the backbone of a checkpoint.

    Args:
        cfg (Config): With ``model`` and perhaps ``data_preprocessor``.
        checkpoint (str): Path or URL.

    Returns:
        nn.Module: The model; only its ``backbone`` is from the checkpoint.

    Raises:
        TypeError, ValueError: If the model cannot be built, or the checkpoint
            lacks a tensor of the backbone.
    """
    settings = dict(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    with named_field('model'):
        model = MODELS.build(settings)
    # The same checks as in the config of a linear probe.
    initialize(
        model.backbone,
        dict(
            type='mmpretrain.Pretrained',
            checkpoint=checkpoint,
            prefix='backbone.',
        ),
    )
    return model


def _build_loader(cfg: dict) -> DataLoader:
    cfg = dict(cfg)
    cfg.setdefault('collate_fn', dict(type='default_collate'))
    cfg.setdefault('sampler', dict(type='DefaultSampler', shuffle=False))
    return Runner.build_dataloader(cfg, seed=0)
