"""Loops, hooks and launch helpers, registered with mmpretrain."""

from .hooks import (
    ChannelsLastHook,
    CheckpointCheckHook,
    ClassNamesCheckHook,
    ExactCheckpointHook,
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
    'ExactCheckpointHook',
    'ExactEpochLoop',
    'ExactIterLoop',
    'KNNTestLoop',
    'KNNValLoop',
    'PreemptionHook',
    'QueueResumeHook',
    'SegmentationCheckHook',
    'TransferCheckHook',
]
