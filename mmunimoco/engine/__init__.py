"""Hooks, loops and the launching of runs, registered with mmpretrain."""

from .broken_images_hook import BrokenImagesHook
from .checks import PreflightHook
from .collapse_hook import CollapseHook
from .delayed_log_hook import DelayedRuntimeInfoHook
from .exact_checkpoint_hook import ExactCheckpointHook
from .exact_loops import ExactEpochLoop, ExactIterLoop
from .knn_loop import KNNTestLoop, KNNValLoop
from .non_finite_loss_hook import NonFiniteLossHook
from .preemption_hook import PreemptionHook
from .pretrained_init import CheckedPretrainedInit
from .queue_resume_hook import QueueResumeHook
from .step_options import FusedOptimWrapperConstructor, StepOptionsHook

__all__ = [
    'BrokenImagesHook',
    'CheckedPretrainedInit',
    'CollapseHook',
    'DelayedRuntimeInfoHook',
    'ExactCheckpointHook',
    'ExactEpochLoop',
    'ExactIterLoop',
    'FusedOptimWrapperConstructor',
    'KNNTestLoop',
    'KNNValLoop',
    'NonFiniteLossHook',
    'PreemptionHook',
    'PreflightHook',
    'QueueResumeHook',
    'StepOptionsHook',
]
