"""Checkpoints of other projects in, checkpoints for other projects out.

Functions on checkpoints that are already read; the command lines are in
tools/model_converters. Not imported by ``import mmunimoco``.
"""

from .incoming import SOURCES, to_mmunimoco
from .metadata import IMAGENET, normalization_of
from .outgoing import (
    backbone_of,
    to_backbone,
    to_detectron2,
    to_timm,
    to_torchvision,
)
from .timm_model import TimmModel, describe_for_timm

__all__ = [
    'IMAGENET',
    'SOURCES',
    'TimmModel',
    'backbone_of',
    'describe_for_timm',
    'normalization_of',
    'to_backbone',
    'to_detectron2',
    'to_mmunimoco',
    'to_timm',
    'to_torchvision',
]
