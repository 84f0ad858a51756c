"""Loops, hooks and launch helpers, registered with mmpretrain."""

from .channels_last_hook import ChannelsLastHook
from .checkpoint_check_hook import CheckpointCheckHook
from .class_names_check_hook import ClassNamesCheckHook
from .collapse_hook import CollapseHook
from .compile_encoders_hook import CompileEncodersHook
from .delayed_log_hook import DelayedRuntimeInfoHook
from .exact_checkpoint_hook import ExactCheckpointHook
from .exact_loops import ExactEpochLoop, ExactIterLoop
from .fused_optimizer import FusedOptimWrapperConstructor
from .gradient_checkpoint_hook import GradientCheckpointHook
from .images_to_device_hook import ImagesToDeviceHook
from .knn_loop import KNNTestLoop, KNNValLoop
from .label_check_hook import LabelCheckHook
from .non_finite_loss_hook import NonFiniteLossHook
from .preemption_hook import PreemptionHook
from .pretrained_init import CheckedPretrainedInit
from .queue_resume_hook import QueueResumeHook
from .segmentation_check_hook import SegmentationCheckHook
from .transfer_check_hook import TransferCheckHook

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
