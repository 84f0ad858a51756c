"""Backbones of this project, for other projects."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from mmunimoco.utils.checkpoint import describe_prefixes, state_dict_of
from mmunimoco.utils.config_text import config_value

from .metadata import normalization_of
from .renaming import Rule, part_of, rename_keys
from .resnet import is_resnet, read_resnet
from .timm_model import describe_for_timm, timm_keys

_PREFIXES = dict(query='backbone.', momentum='encoder_k.module.0.')
ENCODERS = tuple(_PREFIXES)
# detectron2's ResNet: the norm belongs to its convolution, stages count from
# 2, and the stem is a block of its own.
_DETECTRON2_RULES: list[Rule] = [
    (r'conv1\.weight', 'stem.conv1.weight'),
    (r'bn1\.(.+)', r'stem.conv1.norm.\1'),
    *(
        rule
        for n in (1, 2, 3, 4)
        for rule in (
            (rf'layer{n}\.(\d+)\.(conv\d\.weight)', rf'res{n + 1}.\1.\2'),
            (
                rf'layer{n}\.(\d+)\.bn(\d)\.(.+)',
                rf'res{n + 1}.\1.conv\2.norm.\3',
            ),
            (
                rf'layer{n}\.(\d+)\.downsample\.0\.weight',
                rf'res{n + 1}.\1.shortcut.weight',
            ),
            (
                rf'layer{n}\.(\d+)\.downsample\.1\.(.+)',
                rf'res{n + 1}.\1.shortcut.norm.\2',
            ),
        )
    ),
]


def meta_of(checkpoint: Mapping) -> dict:
    """The meta of a checkpoint, empty if it has none."""
    meta = checkpoint.get('meta')
    return dict(meta) if isinstance(meta, Mapping) else {}


def backbone_of(
    checkpoint: Mapping, encoder: str = 'query'
) -> dict[str, Tensor]:
    """The weights of one backbone.

    Args:
        checkpoint (Mapping): A checkpoint that was read.
        encoder (str): 'query', what is under ``backbone.``, or 'momentum',
            the backbone of the momentum encoder. Defaults to 'query'.

    Returns:
        dict[str, Tensor]: By the backbone's own keys, without prefix.

    Raises:
        ValueError: If there is none.
    """
    if encoder not in _PREFIXES:
        raise ValueError(f'encoder must be query or momentum, not {encoder!r}')
    state = state_dict_of(checkpoint, unwrap=True)
    backbone = part_of(state, _PREFIXES[encoder])
    if not backbone:
        raise ValueError(
            f"no key starts with '{_PREFIXES[encoder]}', under which the "
            f"{encoder} encoder's backbone would be. The file holds "
            f'{describe_prefixes(state)}.'
        )
    return backbone


def to_backbone(
    backbone: Mapping[str, Tensor], meta: Mapping
) -> dict[str, dict]:
    """A checkpoint for mmpretrain, mmdet and mmseg, of any backbone.

    Args:
        backbone (Mapping[str, Tensor]): What :func:`backbone_of` returned.
        meta (Mapping): The meta of the checkpoint.

    Returns:
        dict[str, dict]: ``meta``, with ``normalization`` where it is known,
        and ``state_dict`` with keys under ``backbone.``.
    """
    known = normalization_of(meta)
    new = dict(meta) if known is None else {**meta, 'normalization': known}
    state = {f'backbone.{key}': value for key, value in backbone.items()}
    return dict(meta=new, state_dict=state)


def to_torchvision(
    backbone: Mapping[str, Tensor], meta: Mapping
) -> dict[str, Tensor]:
    """A state dict for torchvision's ResNets, without ``fc``.

    Args:
        backbone (Mapping[str, Tensor]): What :func:`backbone_of` returned.
        meta (Mapping): The meta of the checkpoint.

    Returns:
        dict[str, Tensor]: Weights by torchvision's keys.

    Raises:
        ValueError: If torchvision has no such ResNet.
    """
    if not is_resnet(backbone):
        raise ValueError('the backbone is no plain ResNet: use timm instead')
    return to_timm(backbone, meta)


def to_timm(
    backbone: Mapping[str, Tensor], meta: Mapping
) -> dict[str, Tensor]:
    """A state dict for timm's ResNets and ViTs with ``num_classes=0``.

    Args:
        backbone (Mapping[str, Tensor]): What :func:`backbone_of` returned.
        meta (Mapping): The meta of the checkpoint.

    Returns:
        dict[str, Tensor]: Weights by timm's keys.

    Raises:
        ValueError: If timm has no such model.
    """
    describe_for_timm(backbone, meta)
    _refuse_caffe_style(meta)
    return timm_keys(backbone)


def to_detectron2(
    backbone: Mapping[str, Tensor], meta: Mapping
) -> dict[str, Any]:
    """What detectron2 expects in a ``.pkl``, of a ResNet of any width.

    Args:
        backbone (Mapping[str, Tensor]): What :func:`backbone_of` returned.
        meta (Mapping): The meta of the checkpoint.

    Returns:
        dict[str, Any]: ``model`` (arrays by detectron2's keys),
        ``__author__`` and ``matching_heuristics``.

    Raises:
        ValueError: If the backbone is no plain ResNet with a 7x7 stem.
    """
    shape = read_resnet(backbone)
    if shape.stem_kernel != 7:
        raise ValueError(
            f'the backbone is a {shape}; that of detectron2 has a 7x7 stem'
        )
    _refuse_caffe_style(meta)
    renamed = rename_keys(backbone, _DETECTRON2_RULES, 'plain ResNet')
    arrays = {key: np.asarray(value) for key, value in renamed.items()}
    return {
        'model': arrays,
        '__author__': 'mmunimoco',
        'matching_heuristics': True,
    }


def _refuse_caffe_style(meta: Mapping) -> None:
    backbone = config_value(meta.get('cfg'), 'model', 'backbone') or {}
    if backbone.get('style') == 'caffe':
        raise ValueError(
            "the ResNet was trained with style='caffe', the stride in its "
            'first 1x1 convolutions; the others have it in the 3x3, where '
            'these weights would give other features'
        )
