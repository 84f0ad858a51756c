"""ResNets for detectron2."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mmunimoco.utils.atomic import write_whole

from .keys import Rule, rename_keys
from .resnet import read_resnet

# There the norm belongs to its convolution, stages count from 2, and the stem
# is a block of its own.
_RULES: list[Rule] = [
    (r'conv1\.weight', 'stem.conv1.weight'),
    (r'bn1\.(.+)', r'stem.conv1.norm.\1'),
]
for _n in (1, 2, 3, 4):
    _old, _new = rf'layer{_n}\.(\d+)', rf'res{_n + 1}.\1'
    _RULES += [
        (rf'{_old}\.(conv\d\.weight)', rf'{_new}.\2'),
        (rf'{_old}\.bn(\d)\.(.+)', rf'{_new}.conv\2.norm.\3'),
        (rf'{_old}\.downsample\.0\.weight', rf'{_new}.shortcut.weight'),
        (rf'{_old}\.downsample\.1\.(.+)', rf'{_new}.shortcut.norm.\2'),
    ]


def to_detectron2(backbone: Mapping[str, Tensor]) -> dict[str, Any]:
    """Convert a ResNet of any width to the content of detectron2's ``.pkl``.

    Args:
        backbone (Mapping[str, Tensor]): By mmpretrain's keys, without prefix.

    Returns:
        dict[str, Any]: ``model`` (arrays by detectron2's keys),
        ``__author__`` and ``matching_heuristics``.

    Raises:
        ValueError: If the backbone is not a plain ResNet with a 7x7 stem.
    """
    shape = read_resnet(backbone)
    if shape.stem_kernel != 7:
        raise ValueError(
            f'the backbone is a {shape}; that of detectron2 has a 7x7 stem'
        )
    renamed = rename_keys(backbone, _RULES, 'plain ResNet')
    return {
        'model': {key: np.asarray(value) for key, value in renamed.items()},
        '__author__': 'mmunimoco',
        'matching_heuristics': True,
    }


def write_pickle(path: Path, content: Mapping) -> None:
    """Write a pickle that every numpy release can read.

    Args:
        path (Path): The file.
        content (Mapping): What to save.
    """

    def write(temporary: Path) -> None:
        with temporary.open('wb') as file:
            _ArrayPickler(file).dump(content)

    write_whole(path, write)


class _ArrayPickler(pickle.Pickler):
    """Refers to nothing but ``numpy.ndarray`` and ``numpy.dtype``.

    numpy 2 would refer to ``numpy._core``, which numpy 1 does not have.
    """

    def reducer_override(self, item: Any) -> Any:
        if type(item) is np.ndarray:
            return np.ndarray, ((0,), 'b'), item.__reduce__()[2]
        return NotImplemented
