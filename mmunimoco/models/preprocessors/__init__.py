"""Augmentation of two views on the model's device."""

from .two_view_augment import TwoViewAugment

__all__ = ['TwoViewAugment']
