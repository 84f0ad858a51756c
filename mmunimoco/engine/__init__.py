"""Loops, hooks and launch helpers, registered with mmpretrain."""

from .fused_optimizer import FusedOptimWrapperConstructor
from .hooks import (
    ChannelsLastHook,
    CheckpointCheckHook,
    ClassNamesCheckHook,
    CompileEncodersHook,
    DelayedRuntimeInfoHook,
    GradientCheckpointHook,
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
    'CompileEncodersHook',
    'DelayedRuntimeInfoHook',
    'FusedOptimWrapperConstructor',
    'GradientCheckpointHook',
    'ImagesToDeviceHook',
    'KNNTestLoop',
    'KNNValLoop',
    'SegmentationCheckHook',
    'TransferCheckHook',
]
