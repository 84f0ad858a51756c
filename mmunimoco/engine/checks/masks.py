"""Checks of segmentation: classes of the heads, of datasets and of masks."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.logging import print_log
from torch import nn

from mmunimoco.datasets.annotations import leaves_of
from mmunimoco.datasets.pipelines import transforms_of

IGNORED = 255  # mmseg leaves it out of losses and metrics
MASKS_READ = 200  # at most, before a run


def check_segmentation_heads(model: nn.Module, dataset: Any) -> None:
    """Compare mmseg's heads with the number of classes of the dataset.

    mmseg does not notice a head with more classes than the dataset.

    Raises:
        ValueError: If a head has another number of classes.
    """
    heads = _segmentation_heads(model)
    classes = heads and dataset.metainfo.get('classes')
    if not classes:
        return
    for name, count in heads.items():
        if count != len(classes):
            raise ValueError(
                f'model.{name}.num_classes is {count}, but the dataset has '
                f'the {len(classes)} classes {list(classes)}: set '
                f'num_classes={len(classes)}.'
            )


def check_masks(model: nn.Module, data_batch: Mapping | None) -> None:
    """Compare the masks of a batch with the classes of mmseg's heads.

    A class beyond the last one is an assertion inside a CUDA kernel in
    training, and silently a mistake in validation and testing.

    Raises:
        ValueError: If a mask has a class that the heads do not have.
    """
    heads = _segmentation_heads(model)
    if not heads or not isinstance(data_batch, Mapping):
        return
    count = min(heads.values())
    for sample in data_batch.get('data_samples') or ():
        if 'gt_sem_seg' not in sample:
            continue
        mask = sample.gt_sem_seg.data
        wrong = mask[(mask >= count) & (mask != IGNORED)]
        if wrong.numel():
            path = sample.metainfo.get('seg_map_path', 'a mask')
            raise ValueError(
                f'{path} has pixels of the classes '
                f'{wrong.unique().tolist()[:8]}, but the classes are '
                f'0 ... {count - 1} (and {IGNORED}: ignored). A mask holds '
                'one class index per pixel, not colours; '
                'reduce_zero_label=True subtracts 1 from each.'
            )


def check_mask_values(model: nn.Module, datasets: Mapping[str, Any]) -> None:
    """Read masks of each dataset until every class has been seen.

    In masks of 0 and 255, black and white, all foreground is ignored: the
    metrics of the only class that is left are perfect. Benchmarks, with
    classes of their own, are not read.

    Args:
        model (nn.Module): Nothing is done if it has no heads of mmseg.
        datasets (Mapping[str, Any]): Initialised datasets by the field of the
            config.

    Raises:
        ValueError: If all pixels are ignored, or all but those of one class.
    """
    if not _segmentation_heads(model):
        return
    for field, dataset in datasets.items():
        for leaf in leaves_of(dataset):
            classes = (getattr(leaf, 'metainfo', None) or {}).get('classes')
            defaults = getattr(type(leaf), 'METAINFO', {}).get('classes') or ()
            loader = _mask_loader(leaf)
            if loader and classes and list(classes) != list(defaults):
                _check_values(field, leaf, loader, classes)


def _mask_loader(leaf: Any) -> Any:
    """The transform that loads the masks of a dataset, None if unknown."""
    found = (x for x in transforms_of(leaf) if getattr(x, 'with_seg', False))
    return next(found, None)


def _check_values(field: str, leaf: Any, loader: Any, classes: Any) -> None:
    values: set[int] = set()
    count = min(len(leaf), MASKS_READ)
    for index in np.linspace(0, len(leaf) - 1, count).astype(int).tolist():
        values |= _values_of_mask(loader, leaf.get_data_info(index))
        if values >= set(range(len(classes))):
            return
    seen = values - {IGNORED}
    read = f'{count} of {len(leaf)} masks of {field}'
    if max(seen, default=0) >= len(classes):
        return  # refused with the batch that has it
    if not seen or (len(seen) == 1 < len(classes) and IGNORED in values):
        only = ''.join(f'{i} ({classes[i]}) and ' for i in seen)
        raise ValueError(
            f'in {read} all pixels are {only}{IGNORED}, which is ignored in '
            'training and in metrics. A mask holds the class index of each '
            f'pixel: write 1, not {IGNORED}, for the second of the classes '
            f'{list(classes)}, and so on. (reduce_zero_label=True ignores 0.)'
        )
    missing = [x for i, x in enumerate(classes) if i not in seen]
    print_log(
        f'No pixel in {read} is of the classes {missing}: are classes and '
        'masks in the same order?',
        logger='current',
        level=logging.WARNING,
    )


def _values_of_mask(loader: Any, info: dict) -> set[int]:
    path = info.get('seg_map_path')
    try:
        mask = loader.transform(info)['gt_seg_map']
    except Exception as error:  # of storage and decoders
        raise ValueError(f'the mask {path} does not load: {error}') from error
    if mask.ndim != 2:
        raise ValueError(
            f'{path} has the shape {mask.shape}: a mask holds one class index '
            'per pixel, not a colour.'
        )
    return set(np.unique(mask).tolist())


def _segmentation_heads(model: nn.Module) -> dict[str, int]:
    """Number of classes of each segmentation head, by its config field."""
    heads = {}
    for name in ('decode_head', 'auxiliary_head'):
        head = getattr(model, name, None)
        named = {name: head}
        if isinstance(head, nn.ModuleList):
            named = {f'{name}.{i}': one for i, one in enumerate(head)}
        for field, one in named.items():
            if hasattr(one, 'num_classes'):
                heads[field] = one.num_classes
    return heads
