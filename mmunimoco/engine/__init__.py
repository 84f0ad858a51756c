"""Hooks, loops and the launching of runs, registered with mmpretrain."""

from .broken_images import BrokenImagesHook
from .checks.preflight import PreflightHook
from .collapse import CollapseHook
from .exact.checkpoint import ExactCheckpointHook
from .exact.loops import ExactEpochLoop, ExactIterLoop
from .exact.queue_resume import QueueResumeHook
from .knn_loop import KNNTestLoop, KNNValLoop
from .logs import (
    BriefRunner,
    DelayedRuntimeInfoHook,
    PatientVisBackend,
    ProgressHook,
    SpeedMonitorHook,
)
from .monitors import FeatureMonitorHook, OnlineProbeHook
from .non_finite import NonFiniteLossHook
from .preemption import PreemptionHook
from .pretrained_init import CheckedPretrainedInit
from .schedules import ExtendScheduleHook
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
    'FeatureMonitorHook',
    'FusedOptimWrapperConstructor',
    'KNNTestLoop',
    'KNNValLoop',
    'NonFiniteLossHook',
    'OnlineProbeHook',
    'PatientVisBackend',
    'PreemptionHook',
    'PreflightHook',
    'ProgressHook',
    'QueueResumeHook',
    'SpeedMonitorHook',
    'StepOptionsHook',
]
