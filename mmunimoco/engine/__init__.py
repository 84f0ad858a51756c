"""Loops, hooks and launch helpers, registered with mmpretrain."""

from .hooks import (
    ChannelsLastHook,
    CheckpointCheckHook,
    ClassNamesCheckHook,
    ImagesToDeviceHook,
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
    'ImagesToDeviceHook',
    'KNNTestLoop',
    'KNNValLoop',
    'SegmentationCheckHook',
    'TransferCheckHook',
]
