"""Datasets and wrappers, registered with mmpretrain."""

from .cached_backend import CachedBackend
from .fashion_mnist import DemoFashionMNIST
from .ignored_objects import TrainIgnoredObjects
from .labeled_samples import LabeledSubset, RepeatLabeled
from .mask_folders import MaskFolders
from .partial_labels import PartialLabels
from .shared_collate import collate_views
from .tar_files import TarBackend
from .transforms import IndexAsImage, LoadTwoCrops

__all__ = [
    'CachedBackend',
    'DemoFashionMNIST',
    'IndexAsImage',
    'LabeledSubset',
    'LoadTwoCrops',
    'MaskFolders',
    'PartialLabels',
    'RepeatLabeled',
    'TarBackend',
    'TrainIgnoredObjects',
    'collate_views',
]
