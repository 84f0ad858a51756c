"""Hooks, loops and the launching of runs, registered with mmpretrain."""

from .broken_images import BrokenImagesHook
from .checks import PreflightHook
from .collapse import CollapseHook
from .console import BriefRunner, ProgressHook
from .exact_checkpoint import ExactCheckpointHook
from .exact_loops import ExactEpochLoop, ExactIterLoop
from .extend_schedule import ExtendScheduleHook
from .knn_loop import KNNTestLoop, KNNValLoop
from .non_finite import NonFiniteLossHook
from .preemption import PreemptionHook
from .pretrained_init import CheckedPretrainedInit
from .queue_resume import QueueResumeHook
from .runtime_info import DelayedRuntimeInfoHook
from .step_options import FusedOptimWrapperConstructor, StepOptionsHook

__all__ = [
    'BriefRunner',
    'BrokenImagesHook',
    'CheckedPretrainedInit',
    'CollapseHook',
    'DelayedRuntimeInfoHook',
    'ExactCheckpointHook',
    'ExactEpochLoop',
    'ExactIterLoop',
    'ExtendScheduleHook',
    'FusedOptimWrapperConstructor',
    'KNNTestLoop',
    'KNNValLoop',
    'NonFiniteLossHook',
    'PreemptionHook',
    'PreflightHook',
    'ProgressHook',
    'QueueResumeHook',
    'StepOptionsHook',
]
