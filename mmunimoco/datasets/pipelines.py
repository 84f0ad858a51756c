"""What can be known of a pipeline without running it."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmpretrain.datasets import CIFAR10

from .annotations import leaves_of
from .load_two_crops import LoadTwoCrops

# Their transforms load images only if they are called so.
_KNOWN = ('mmcv.', 'mmpretrain.', 'mmdet.', 'mmseg.', 'mmunimoco.')
# Change the order of channels, or what they stand for.
_CONVERTERS = ('NumpyToPIL', 'PILToNumpy')
ADD_LOADER = (
    "put dict(type='LoadTwoCrops', scale=...), which gives two views for "
    "pre-training, or dict(type='CheckedLoadImageFromFile') first in it"
)


def check_loaders(datasets: Mapping[str, Any]) -> None:
    """Refuse pipelines that work on images which nothing loads.

    Args:
        datasets (Mapping[str, Any]): Initialised datasets by the field of the
            config. Wrappers are followed to every dataset below; pipelines
            with transforms of other packages are taken to be right.

    Raises:
        ValueError: Names the field and what to add.
    """
    for field, dataset in datasets.items():
        for leaf in leaves_of(dataset):
            steps = list(transforms_of(leaf))
            info = _first_annotation(leaf) if steps else {}
            if 'img_path' not in info or 'img' in info:
                continue
            if all(_is_known(x) and not _may_load(x) for x in steps):
                names = ', '.join(type(x).__name__ for x in steps)
                raise ValueError(
                    f'the pipeline of {field} ({names}) has no transform that '
                    f'loads images, such as {info["img_path"]}: {ADD_LOADER}'
                )


def channel_order(leaf: Any) -> str | None:
    """Return the order of the channels of the images that a dataset gives.

    Args:
        leaf: An initialised dataset without wrappers.

    Returns:
        str | None: 'bgr' or 'rgb'; None for gray images and where unknown.
    """
    steps = list(transforms_of(leaf))
    names = {type(x).__name__ for x in steps}
    if not all(map(_is_known, steps)) or names.intersection(_CONVERTERS):
        return None
    if 'img' in _first_annotation(leaf):
        # Other datasets in memory store what they are given.
        return 'rgb' if isinstance(leaf, CIFAR10) else None
    return 'bgr' if any(map(_gives_bgr, steps)) else None


def transforms_of(leaf: Any) -> Iterator[Any]:
    """Yield the transforms of a pipeline, also those inside of others."""
    yield from _flat(
        getattr(getattr(leaf, 'pipeline', None), 'transforms', ())
    )


def _flat(steps: Any) -> Iterator[Any]:
    for step in steps:
        inner = getattr(step, 'transforms', None)
        if isinstance(step, list | tuple):
            yield from _flat(step)
        elif type(step).__name__ == 'Compose':
            yield from _flat(inner)
        else:
            yield step
            yield from _flat(inner or ())


def _first_annotation(leaf: Any) -> dict:
    has_one = hasattr(leaf, 'get_data_info') and len(leaf)
    return leaf.get_data_info(0) if has_one else {}


def _is_known(step: Any) -> bool:
    return type(step).__module__.startswith(_KNOWN)


def _may_load(step: Any) -> bool:
    name = type(step).__name__
    return name == 'IndexAsImage' or (
        'Load' in name and 'Annotations' not in name
    )


def _gives_bgr(step: Any) -> bool:
    return isinstance(step, LoadTwoCrops) or (
        isinstance(step, LoadImageFromFile)
        and step.color_type.startswith('color')
        and step.imdecode_backend != 'tifffile'
    )
