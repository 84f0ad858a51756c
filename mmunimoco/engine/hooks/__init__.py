from .channels_last_hook import ChannelsLastHook
from .checkpoint_check_hook import CheckpointCheckHook
from .class_names_check_hook import ClassNamesCheckHook
from .exact_checkpoint_hook import ExactCheckpointHook
from .preemption_hook import PreemptionHook
from .queue_resume_hook import QueueResumeHook
from .segmentation_check_hook import SegmentationCheckHook
from .transfer_check_hook import TransferCheckHook

__all__ = [
    'ChannelsLastHook',
    'CheckpointCheckHook',
    'ClassNamesCheckHook',
    'ExactCheckpointHook',
    'PreemptionHook',
    'QueueResumeHook',
    'SegmentationCheckHook',
    'TransferCheckHook',
]
