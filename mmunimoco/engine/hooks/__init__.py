from .channels_last_hook import ChannelsLastHook
from .checkpoint_check_hook import CheckpointCheckHook

__all__ = ['ChannelsLastHook', 'CheckpointCheckHook']
