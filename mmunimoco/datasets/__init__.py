"""Datasets and wrappers, registered with mmpretrain."""

from .cached_backend import CachedBackend
from .ignored_objects import TrainIgnoredObjects
from .index_as_image import IndexAsImage
from .labeled_samples import LabeledSubset, RepeatLabeled
from .load_two_crops import LoadTwoCrops
from .mask_folders import MaskFolders
from .npz_images import NpzImages
from .partial_labels import PartialLabels
from .shared_collate import collate_views
from .tar_files import TarBackend

__all__ = [
    'CachedBackend',
    'IndexAsImage',
    'LabeledSubset',
    'LoadTwoCrops',
    'MaskFolders',
    'NpzImages',
    'PartialLabels',
    'RepeatLabeled',
    'TarBackend',
    'TrainIgnoredObjects',
    'collate_views',
]
