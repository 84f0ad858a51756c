"""Datasets and wrappers, registered with mmpretrain."""

from .fashion_mnist import DemoFashionMNIST

__all__ = ['DemoFashionMNIST']
