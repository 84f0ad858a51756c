"""Pooled features of a frozen backbone, batch by batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import autocast
from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model in evaluation mode and restore the mode of each module.

    ``model.train()`` would also unfreeze batch norms that are frozen.

    Args:
        model (nn.Module): The model.

    Yields:
        nn.Module: The same model.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


def pool(features: Tensor | Sequence[Tensor]) -> Tensor:
    """Pool the output of a backbone to one vector per image.

    Args:
        features (Tensor | Sequence[Tensor]): Output of one stage or several,
            of which the last is used: (N, C, H, W) is averaged over H and W,
            (N, C), such as the class token of a ViT, is used as it is.

    Returns:
        Tensor: (N, C) float32.

    Raises:
        ValueError: If the output has another number of dimensions.
    """
    if not isinstance(features, Tensor):
        features = features[-1]
    if features.ndim == 4:
        # In float32: sums over H x W overflow in half precision.
        return features.float().mean(dim=(2, 3))
    if features.ndim == 2:
        return features.float()
    raise ValueError(
        'the backbone must return (N, C, H, W) or (N, C) features, got shape '
        f"{tuple(features.shape)}; for a ViT set backbone.out_type='cls_token'"
        " or 'avg_featmap'."
    )


@torch.no_grad()
def extract_batch(
    model: nn.Module, data_batch: dict, fp16: bool = False
) -> tuple[Tensor, list]:
    """Compute the pooled backbone features of a batch of single views.

    Args:
        model (nn.Module): An mmpretrain model in evaluation mode, with
            ``data_preprocessor`` and ``backbone``, possibly wrapped in DDP.
        data_batch (dict): A collated batch: ``inputs`` (N, C, H, W) and
            ``data_samples``, a list of N.
        fp16 (bool): Whether to run the backbone under autocast. Defaults to
            False.

    Returns:
        tuple[Tensor, list]: (N, C) float32 features on the model's device
        and the N data samples as the data loader returned them.

    Raises:
        ValueError: If the batch has several views or no data samples.
    """
    if data_batch.get('data_samples') is None:
        raise ValueError(
            'the pipeline returns no data samples; end it with PackInputs.'
        )
    if not isinstance(data_batch['inputs'], Tensor):
        raise ValueError(
            'features are computed from one view per image, in batches '
            'stacked to one tensor; remove MultiView from the pipelines of '
            "the evaluation and set collate_fn=dict(type='default_collate')."
        )
    module = model.module if is_model_wrapper(model) else model
    # Without the data samples, which the preprocessor would copy to the
    # device; mmpretrain's also fails on partially labeled batches.
    batch = dict(inputs=data_batch['inputs'], data_samples=None)
    with autocast(enabled=fp16):
        inputs = module.data_preprocessor(batch, False)['inputs']
        features = pool(module.backbone(inputs))
    return features, list(data_batch['data_samples'])


def count_not_finite(features: Tensor) -> int:
    """Count the rows of (N, C) features with an infinite or NaN entry."""
    return int((~features.isfinite().all(dim=1)).sum())


def not_finite_text(count: int) -> str:
    """Message for ``count`` images whose features are not finite."""
    return (
        f'the features of {count} images are infinite or NaN: weights or BN '
        'statistics are damaged (try an earlier checkpoint), or fp16 '
        'overflows (set it False)'
    )


def labels_of(data_samples: Sequence) -> Tensor:
    """Return the class of each data sample, -1 for unlabeled ones.

    Args:
        data_samples (Sequence[DataSample]): N data samples.

    Returns:
        Tensor: (N,) int64.

    Raises:
        ValueError: If a sample has several labels.
    """
    labels = []
    for sample in data_samples:
        label = sample.get('gt_label', None)
        if label is None or label.numel() == 0:
            labels.append(-1)
        elif label.numel() == 1:
            labels.append(int(label))
        else:
            raise ValueError(
                'kNN and the linear probe need one label per image, but '
                f'{sample.get("img_path", "a sample")} has {label.tolist()}; '
                'multi-label data is not supported.'
            )
    return torch.tensor(labels, dtype=torch.int64)
