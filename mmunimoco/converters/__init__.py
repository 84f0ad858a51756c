"""Checkpoints of other projects in, checkpoints for other projects out.

The commands are in tools/model_converters. Not imported by
``import mmunimoco``.
"""

from .export import ENCODERS, FORMATS, backbone_of, export
from .incoming import SOURCES, to_mmunimoco

__all__ = [
    'ENCODERS',
    'FORMATS',
    'SOURCES',
    'backbone_of',
    'export',
    'to_mmunimoco',
]
