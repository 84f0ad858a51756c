"""Transforms of mmpretrain's pipelines."""

from .load_two_crops import LoadTwoCrops

__all__ = ['LoadTwoCrops']
