"""Datasets and wrappers, registered with mmpretrain."""

from .fashion_mnist import DemoFashionMNIST
from .labeled_subset import LabeledSubset
from .partial_labels import PartialLabels

__all__ = ['DemoFashionMNIST', 'LabeledSubset', 'PartialLabels']
