"""Loops, hooks and launch helpers, registered with mmpretrain."""

from .fused_optimizer import FusedOptimWrapperConstructor
from .hooks import (
    ChannelsLastHook,
    CheckpointCheckHook,
    ClassNamesCheckHook,
    CollapseHook,
    CompileEncodersHook,
    DelayedRuntimeInfoHook,
    ExactCheckpointHook,
    GradientCheckpointHook,
    ImagesToDeviceHook,
    LabelCheckHook,
    NonFiniteLossHook,
    PreemptionHook,
    QueueResumeHook,
    SegmentationCheckHook,
    TransferCheckHook,
)
from .loops import ExactEpochLoop, ExactIterLoop, KNNTestLoop, KNNValLoop
from .pretrained_init import CheckedPretrainedInit

__all__ = [
    'ChannelsLastHook',
    'CheckedPretrainedInit',
    'CheckpointCheckHook',
    'ClassNamesCheckHook',
    'CollapseHook',
    'CompileEncodersHook',
    'DelayedRuntimeInfoHook',
    'ExactCheckpointHook',
    'ExactEpochLoop',
    'ExactIterLoop',
    'FusedOptimWrapperConstructor',
    'GradientCheckpointHook',
    'ImagesToDeviceHook',
    'KNNTestLoop',
    'KNNValLoop',
    'LabelCheckHook',
    'NonFiniteLossHook',
    'PreemptionHook',
    'QueueResumeHook',
    'SegmentationCheckHook',
    'TransferCheckHook',
]
