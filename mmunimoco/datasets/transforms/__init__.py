"""Transforms of mmpretrain's pipelines."""

from .index_as_image import IndexAsImage
from .load_two_crops import LoadTwoCrops

__all__ = ['IndexAsImage', 'LoadTwoCrops']
