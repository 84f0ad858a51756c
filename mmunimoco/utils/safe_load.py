"""Reading checkpoint files without executing what is in them."""

import os.path as osp
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import serialization

from .allowed_pickle import load_allowed, torch_load

# The methods that mmengine stores with a history of logged values.
_STATISTICS = ('min', 'max', 'current', 'mean')
# Where numpy 1 and 2 have what rebuilds numbers and arrays.
_NUMPY_MODULES = ('numpy.core.multiarray', 'numpy._core.multiarray')
# What a file that was cut, or is something else, ends in.
_DAMAGED = (
    *(AssertionError, AttributeError, EOFError, LookupError, OSError),
    *(RuntimeError, TypeError, ValueError, struct.error),
)


def read_checkpoint(path: str) -> dict:
    """Read a checkpoint to the CPU, executing nothing that is in it.

    As ``torch.load`` with ``weights_only=True``, but it also takes what the
    checkpoints of mmengine hold besides weights: numbers and arrays of numpy
    and the history of logged values.

    Args:
        path (str): A local file.

    Returns:
        dict: The checkpoint, or a bare state dict.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, is no checkpoint of torch, or
            holds objects that are not allowed.
    """
    path = osp.expanduser(str(path))
    if not osp.isfile(path):
        raise FileNotFoundError(f'the checkpoint {path} does not exist')
    check_content(path)
    checkpoint = safe_torch_load(path, 'cpu')
    if not isinstance(checkpoint, Mapping):
        raise ValueError(
            f'{path} holds a {type(checkpoint).__name__}, a checkpoint is a '
            'dict'
        )
    return dict(checkpoint)


def check_content(path: str | Path) -> None:
    """Compare what a file of ``torch.save`` holds with its checksums.

    torch writes them but does not look at them when it loads: a byte that the
    disk changed would be a wrong weight. A file without them, of the format
    before torch 1.6, passes.

    Args:
        path (str | Path): A local file.

    Raises:
        ValueError: If the content is not what was written.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (*_DAMAGED, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f'{path} is damaged: {error}') from error
    if damaged is not None:
        raise ValueError(
            f'{path} is damaged: the checksum of {damaged} in it is another '
            'one than when it was written'
        )


def safe_torch_load(file: str | IO, map_location: Any = None) -> Any:
    """``torch.load`` that takes what :func:`read_checkpoint` takes.

    Args:
        file (str | IO): A local file, or a stream of one that can seek.
        map_location (Any): As for ``torch.load``. Defaults to None.

    Returns:
        Any: What is in the file.

    Raises:
        ValueError: If the file is damaged, is none of torch, or holds
            objects that are not allowed.
    """
    name = (
        getattr(file, 'name', 'the stream') if hasattr(file, 'read') else file
    )
    try:
        return _load(file, map_location)
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(name, error)) from error
    except _DAMAGED as error:
        raise ValueError(
            f'{name} is damaged or no checkpoint of torch: {error}'
        ) from error


def _refusal(path: Any, error: Exception) -> str:
    named = re.search(r'GLOBAL ([\w.]+)', str(error))
    if named is None:
        return (
            f'{path} is damaged, no checkpoint of torch, or holds objects '
            f'that are not loaded: {error}'
        )
    return (
        f'{path} holds an object of the type {named[1]}, which is not loaded '
        'because a pickle can execute any code. If you trust the file, load '
        'it with torch and save its state dict alone.'
    )


def _load(file: str | IO, map_location: Any) -> Any:
    # Before 2.6 torch takes no names for what it allows.
    if torch.__version__ < torch.torch_version.TorchVersion('2.6'):
        return load_allowed(file, _safe_globals(), map_location)
    with _allowed(_safe_globals()):
        return torch_load(file, map_location=map_location, weights_only=True)


@contextmanager
def _allowed(ours: list) -> Iterator[None]:
    """Allow types beside those that the user has allowed.

    mmengine allows ``getattr`` as it is while it loads, and with it anything.
    """
    before = serialization.get_safe_globals()
    kept = [item for item in before if item is not getattr]
    serialization.clear_safe_globals()
    serialization.add_safe_globals([*kept, *ours])
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


def _safe_globals() -> list:
    allowed: list = [HistoryBuffer, np.ndarray, np.dtype]
    allowed += [type(np.dtype(code)) for code in np.typecodes['All']]
    reconstruct = np.zeros(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    for module in _NUMPY_MODULES:
        allowed.append((reconstruct, f'{module}._reconstruct'))
        allowed.append((scalar, f'{module}.scalar'))
    # Python's pickles hold methods as getattr(class, name).
    allowed.append((_history_method, 'builtins.getattr'))
    return allowed


def _history_method(owner: type, name: str) -> Callable:
    """Stand in for ``getattr``, which could reach anything."""
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {name!r}')
    return getattr(owner, name)
