"""Loops, hooks and launch helpers, registered with mmpretrain."""

from .hooks import CheckpointCheckHook, TransferCheckHook
from .loops import KNNTestLoop, KNNValLoop
from .pretrained_init import CheckedPretrainedInit

__all__ = [
    'CheckedPretrainedInit',
    'CheckpointCheckHook',
    'KNNTestLoop',
    'KNNValLoop',
    'TransferCheckHook',
]
