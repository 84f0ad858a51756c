"""UniMoCo (arXiv 2103.10773) as a plugin for mmpretrain."""

from . import datasets, engine, evaluation, models
from .version import __version__

__all__ = ['__version__', 'datasets', 'engine', 'evaluation', 'models']
