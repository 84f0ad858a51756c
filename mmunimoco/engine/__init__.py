"""Loops, hooks and launch helpers, registered with mmpretrain."""

from .hooks import (
    ChannelsLastHook,
    CheckpointCheckHook,
    ClassNamesCheckHook,
    SegmentationCheckHook,
    TransferCheckHook,
)
from .loops import KNNTestLoop, KNNValLoop
from .pretrained_init import CheckedPretrainedInit

__all__ = [
    'ChannelsLastHook',
    'CheckedPretrainedInit',
    'CheckpointCheckHook',
    'ClassNamesCheckHook',
    'KNNTestLoop',
    'KNNValLoop',
    'SegmentationCheckHook',
    'TransferCheckHook',
]
