from .channels_last_hook import ChannelsLastHook
from .checkpoint_check_hook import CheckpointCheckHook
from .class_names_check_hook import ClassNamesCheckHook
from .images_to_device_hook import ImagesToDeviceHook
from .segmentation_check_hook import SegmentationCheckHook
from .transfer_check_hook import TransferCheckHook

__all__ = [
    'ChannelsLastHook',
    'CheckpointCheckHook',
    'ClassNamesCheckHook',
    'ImagesToDeviceHook',
    'SegmentationCheckHook',
    'TransferCheckHook',
]
