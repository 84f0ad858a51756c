"""Loops, hooks and launch helpers, registered with mmpretrain."""

from .checkpoint import CheckedPretrainedInit
from .hooks import CheckpointCheckHook
from .loops import KNNTestLoop, KNNValLoop

__all__ = [
    'CheckedPretrainedInit',
    'CheckpointCheckHook',
    'KNNTestLoop',
    'KNNValLoop',
]
