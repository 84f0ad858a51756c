"""Datasets and wrappers, registered with mmpretrain."""

from .fashion_mnist import DemoFashionMNIST
from .ignored_objects import TrainIgnoredObjects
from .labeled_samples import LabeledSubset, RepeatLabeled
from .mask_folders import MaskFolders
from .partial_labels import PartialLabels
from .transforms import LoadTwoCrops

__all__ = [
    'DemoFashionMNIST',
    'LabeledSubset',
    'LoadTwoCrops',
    'MaskFolders',
    'PartialLabels',
    'RepeatLabeled',
    'TrainIgnoredObjects',
]
