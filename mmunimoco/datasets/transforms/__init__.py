"""Transforms of mmpretrain's pipelines."""

from .index_as_image import IndexAsImage
from .load_image import LoadCheckedImage
from .load_two_crops import LoadTwoCrops

__all__ = ['IndexAsImage', 'LoadCheckedImage', 'LoadTwoCrops']
