"""Compare channel order of images, statistics and colour operations."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.logging import print_log

from mmunimoco.datasets.annotations import leaves_of
from mmunimoco.datasets.pipelines import channel_order, transforms_of
from mmunimoco.utils.normalization import (
    Normalization,
    normalization_of_config,
)

# Means of ImageNet, CIFAR-10 and -100 and CLIP's data, red first.
_RGB_MEANS = (
    (123.675, 116.28, 103.53),
    (125.307, 122.961, 113.8575),
    (129.304, 124.07, 112.434),
    (122.771, 116.746, 104.094),
)
_TOLERANCE = 1.5  # of values 0 to 255
_OTHER = {'rgb': 'bgr', 'bgr': 'rgb'}


def warn_of_channel_order(
    cfg: Mapping, preprocessor: Any, datasets: Mapping[str, Any]
) -> None:
    """Warn if red is taken for blue.

    Images from files are BGR in OpenMMLab, those of mmpretrain's CIFAR data
    sets RGB. Nothing fails if a config for one kind is used for the other:
    the statistics of other channels are subtracted, and colour operations
    weigh them wrongly. Statistics have an order only if they are those of
    known data sets.

    Args:
        cfg (Mapping): The complete config.
        preprocessor (nn.Module): The model's data preprocessor.
        datasets (Mapping[str, Any]): Initialised datasets by the field of the
            config; the one in training first.
    """
    normalization = normalization_of_config(cfg)
    said = set()  # parts of a dataset mostly have the same faults
    for index, (field, dataset) in enumerate(datasets.items()):
        augmenting = preprocessor if index == 0 else None
        for leaf in leaves_of(dataset):
            order = channel_order(leaf)
            if order is None:
                continue
            for text in _faults(order, normalization, augmenting, leaf):
                if (field, text) not in said:
                    said.add((field, text))
                    print_log(
                        f'{field} {text}',
                        logger='current',
                        level=logging.WARNING,
                    )


def _faults(
    order: str,
    normalization: Normalization | None,
    augmenting: Any,
    leaf: Any,
) -> Iterator[str]:
    given = f'gives images in {order.upper()} order'
    right = 'True' if order == 'bgr' else 'False'
    expected = getattr(augmenting, 'input_order', order)
    if expected != order:
        yield (
            f'{given}, but colour operations of data_preprocessor take them '
            f'for {expected.upper()}: set data_preprocessor.to_rgb={right} '
            f'(with mean and std in RGB order), or input_order={order!r}.'
        )
    known = normalization and _order_of(normalization.mean)
    if known and _order_after(order, normalization) != known:
        yield (
            f'{given}, but after data_preprocessor (to_rgb='
            f'{normalization.to_rgb}) they are not in the {known.upper()} '
            f'order of its mean {list(normalization.mean)}: '
            f'{_fix(order, known)}.'
        )
    for step in transforms_of(leaf):
        weights = getattr(step, 'channel_weights', None)
        if weights and _order_of_weights(weights) == _OTHER[order]:
            yield (
                f'{given}, but channel_weights={tuple(weights)} of '
                f'{type(step).__name__} are in the other order: reverse them.'
            )


def _order_after(order: str, normalization: Normalization) -> str:
    return _OTHER[order] if normalization.to_rgb else order


def _fix(order: str, known: str) -> str:
    if order == known:
        return 'set data_preprocessor.to_rgb=False'
    return 'set data_preprocessor.to_rgb=True (bgr_to_rgb in mmdet and mmseg)'


def _order_of(mean: Sequence[float]) -> str | None:
    """Order of the statistics, if they are those of a known data set."""
    for known in _RGB_MEANS:
        for order, wanted in (('rgb', known), ('bgr', known[::-1])):
            if len(mean) == 3 and np.allclose(mean, wanted, 0, _TOLERANCE):
                return order
    return None


def _order_of_weights(weights: Sequence[float]) -> str | None:
    """Red counts more for the eye than blue; None if they are the same."""
    if len(weights) != 3 or weights[0] == weights[2]:
        return None
    return 'rgb' if weights[0] > weights[2] else 'bgr'
