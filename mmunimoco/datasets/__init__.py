"""Datasets, dataset wrappers, transforms and storage backends."""

from .encoded_crops import LoadEncodedCrops, collate_encoded
from .labeled_samples import LabeledSubset, RepeatLabeled
from .load_two_crops import LoadTwoCrops
from .loading import CheckedLoadImageFromFile
from .mask_folders import MaskFolders
from .npz_images import NpzImages
from .partial_labels import PartialLabels
from .shared_collate import collate_views
from .skip_broken import SkipBrokenImages
from .storage import CachedBackend, TarBackend
from .transforms import IndexAsImage, TrainIgnoredObjects

__all__ = [
    'CachedBackend',
    'CheckedLoadImageFromFile',
    'IndexAsImage',
    'LabeledSubset',
    'LoadEncodedCrops',
    'LoadTwoCrops',
    'MaskFolders',
    'NpzImages',
    'PartialLabels',
    'RepeatLabeled',
    'SkipBrokenImages',
    'TarBackend',
    'TrainIgnoredObjects',
    'collate_encoded',
    'collate_views',
]
