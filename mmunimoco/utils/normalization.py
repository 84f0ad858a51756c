"""Mean, standard deviation and channel order of the images of a config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .config_text import config_value

# ImageNet's, as in torchvision, timm's ResNets and MoCo: RGB, 0 to 255.
IMAGENET = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)
# For values 0 to 255: accepts rounding, but not another data set.
_TOLERANCE = 0.1
_TO_RGB = ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr')


@dataclass(frozen=True)
class Normalization:
    """How images are normalized before a backbone sees them.

    Attributes:
        mean (tuple[float]): Mean of each channel, for values 0 to 255.
        std (tuple[float]): Standard deviation of each channel.
        to_rgb (bool): Whether the channels, which OpenMMLab loads as BGR,
            are reversed first.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    to_rgb: bool

    def __str__(self) -> str:
        order = 'RGB' if self.to_rgb else 'BGR (as loaded)'
        mean, std = (
            [round(value, 3) for value in values]
            for values in (self.mean, self.std)
        )
        return f'mean {mean}, std {std}, channels {order}'

    def agrees_with(self, other: 'Normalization') -> bool:
        """Whether both are equal except for rounding."""
        return self.to_rgb == other.to_rgb and all(
            len(own) == len(theirs)
            and np.allclose(own, theirs, rtol=0, atol=_TOLERANCE)
            for own, theirs in ((self.mean, other.mean), (self.std, other.std))
        )

    def to_meta(self) -> dict:
        """Return the value for ``meta['normalization']`` of a checkpoint."""
        return dict(
            mean=list(self.mean), std=list(self.std), to_rgb=self.to_rgb
        )


def normalization_of(preprocessor: Mapping[str, Any]) -> Normalization:
    """Read the normalization from the config of a data preprocessor.

    Args:
        preprocessor (Mapping): Config of a data preprocessor of mmpretrain
            (``to_rgb``), mmdet or mmseg (``bgr_to_rgb``), or
            ``meta['normalization']`` of a checkpoint.

    Returns:
        Normalization: Mean 0 and std 1 where the config has none.

    Raises:
        TypeError: If a value has the wrong type.
    """
    mean, std = preprocessor.get('mean'), preprocessor.get('std')
    return Normalization(
        mean=tuple(map(float, (0, 0, 0) if mean is None else mean)),
        std=tuple(map(float, (1, 1, 1) if std is None else std)),
        to_rgb=any(preprocessor.get(key, False) for key in _TO_RGB),
    )


def normalization_of_config(cfg: Mapping[str, Any]) -> Normalization | None:
    """Read the normalization from a config.

    Args:
        cfg (Mapping): A complete config.

    Returns:
        Normalization | None: None if it has no data preprocessor.
    """
    model = cfg.get('model')
    inner = model and model.get('data_preprocessor')
    # mmengine uses that of the model if there are two.
    preprocessor = inner or cfg.get('data_preprocessor')
    return normalization_of(preprocessor) if preprocessor else None


def for_files(
    normalization: Normalization, dataset: Mapping[str, Any]
) -> Normalization:
    """That of image files for a network trained on arrays in RGB.

    Args:
        normalization (Normalization): Of the config.
        dataset (Mapping): Its training data. If nothing in the pipeline loads
            files, as with CIFAR, the images are RGB from the beginning.

    Returns:
        Normalization: The same network sees the same of files with it.
    """
    pipeline = pipeline_of(dataset)
    if not pipeline or loads_files(pipeline):
        return normalization
    return replace(normalization, to_rgb=not normalization.to_rgb)


def pipeline_of(dataset: Mapping[str, Any]) -> list[dict]:
    """The pipeline of a dataset's config, or of the one that it wraps."""
    while 'pipeline' not in dataset and isinstance(
        dataset.get('dataset'), Mapping
    ):
        dataset = dataset['dataset']
    return dataset.get('pipeline') or []


def loads_files(pipeline: Sequence[Mapping]) -> bool:
    """Whether a pipeline loads images; else the dataset has them."""
    return any('Load' in str(transform['type']) for transform in pipeline)


def normalization_of_checkpoint(
    checkpoint: Mapping[str, Any],
) -> Normalization | None:
    """Read how the images of pre-training were normalized.

    Args:
        checkpoint (Mapping): A loaded checkpoint: ``meta`` may have
            ``normalization`` or, from mmengine, the text of the config in
            ``cfg``, which is parsed and not executed.

    Returns:
        Normalization | None: None if it is not known.
    """
    meta = checkpoint.get('meta')
    if not isinstance(meta, Mapping):
        return None
    try:
        if meta.get('normalization'):
            return normalization_of(meta['normalization'])
        text, name = meta.get('cfg'), 'data_preprocessor'
        found = config_value(text, 'model', name) or config_value(text, name)
        if not found:
            return None
        data = config_value(text, 'train_dataloader', 'dataset')
        return for_files(normalization_of(found), data or {})
    except (AttributeError, TypeError, ValueError):
        return None  # written by another program
