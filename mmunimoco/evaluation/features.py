"""Pooled, frozen features of a model, batch by batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import autocast
from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model in evaluation mode and give every module its mode back.

    The mode is kept module by module, because ``model.train()`` would wake
    batch normalisation that was frozen on purpose.

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
    """One vector an image from what a backbone returns.

    Args:
        features (Tensor | Sequence[Tensor]): A stage's output or several;
            the last counts. (N, C, H, W) is averaged over H and W; (N, C),
            such as the class token of a ViT, is taken as it is.

    Returns:
        Tensor: (N, C) float32.

    Raises:
        ValueError: If the output has another number of dimensions.
    """
    if not isinstance(features, Tensor):
        features = features[-1]
    if features.ndim == 4:
        # Sums over H x W overflow in half precision: pool in float32.
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
    """Pooled backbone features of one batch of single views.

    Args:
        model (nn.Module): An mmpretrain model with ``data_preprocessor`` and
            ``backbone``, perhaps wrapped for distribution; in evaluation
            mode.
        data_batch (dict): A collated batch: ``inputs`` (N, C, H, W) and
            ``data_samples``, a list of N.
        fp16 (bool): Run the backbone under autocast. Defaults to False.

    Returns:
        tuple[Tensor, list]: (N, C) float32 features on the model's device
        and the N data samples as the data loader gave them.

    Raises:
        ValueError: If the batch has several views or no data samples.
    """
    if data_batch.get('data_samples') is None:
        raise ValueError(
            'the pipeline gives no data samples; let it end in PackInputs.'
        )
    if not isinstance(data_batch['inputs'], Tensor):
        raise ValueError(
            'features are taken of one view an image, in batches stacked to '
            'one tensor; leave MultiView out of the pipelines of the '
            "evaluation and set collate_fn=dict(type='default_collate')."
        )
    module = model.module if is_model_wrapper(model) else model
    # The preprocessor is spared the data samples: it would copy them to the
    # device, and mmpretrain's stumbles over partly labeled batches.
    batch = dict(inputs=data_batch['inputs'], data_samples=None)
    with autocast(enabled=fp16):
        inputs = module.data_preprocessor(batch, False)['inputs']
        features = pool(module.backbone(inputs))
    return features, list(data_batch['data_samples'])


def count_not_finite(features: Tensor) -> int:
    """Number of rows with an entry that is infinite or NaN.

    Args:
        features (Tensor): (N, C) float.

    Returns:
        int: 0 to N.
    """
    return int((~features.isfinite().all(dim=1)).sum())


def not_finite_text(count: int) -> str:
    """What to say of images whose features are not finite.

    Args:
        count (int): How many there are.

    Returns:
        str: What is wrong and what to look at.
    """
    return (
        f'the features of {count} images are infinite or NaN: weights or BN '
        'statistics are damaged (try an earlier checkpoint), or fp16 '
        'overflows (set it False)'
    )


def labels_of(data_samples: Sequence) -> Tensor:
    """Class of each data sample, -1 where there is none.

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
                'one label an image is needed, but '
                f'{sample.get("img_path", "a sample")} has {label.tolist()}; '
                'kNN and the linear probe do not handle multi-label data.'
            )
    return torch.tensor(labels, dtype=torch.int64)
