"""Read checkpoint files without executing what they contain.

A pickle can call any function. ``torch.load(weights_only=True)`` restricts
that, but it refuses the numpy values and ``HistoryBuffer`` objects in
mmengine's checkpoints: before torch 2.4 always, later unless they are added
to a list that all threads of the process share. Here ``torch.load`` is given
an unpickler with a list of its own, which works the same way on all releases
and changes nothing outside the call.
"""

import os.path as osp
import pickle
import re
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import _weights_only_unpickler, serialization

_DAMAGED = (
    *(AssertionError, AttributeError, EOFError, LookupError, OSError),
    *(RuntimeError, TypeError, ValueError, struct.error),
)


def read_checkpoint(path: str | Path) -> dict:
    """Read a checkpoint file to the CPU, without executing its content.

    Args:
        path (str | Path): A local file.

    Returns:
        dict: The checkpoint, or a bare state dict.

    Raises:
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If it is a folder.
        ValueError: If the file is damaged, was not written by ``torch.save``,
            contains a type that is not allowed, or is not a dict.
    """
    path = osp.expanduser(str(path))
    check_is_file(path)
    check_content(path)
    checkpoint = safe_torch_load(path, 'cpu')
    if not isinstance(checkpoint, Mapping):
        raise ValueError(
            f'{path} contains a {type(checkpoint).__name__}, but a checkpoint '
            'is a dict'
        )
    return dict(checkpoint)


def check_is_file(path: str) -> None:
    """Raise if there is no such checkpoint, or only a folder.

    Args:
        path (str): A local file.

    Raises:
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If it is a folder.
    """
    if osp.isdir(path):
        raise IsADirectoryError(
            f'the checkpoint {path} is a folder: give a file in it'
        )
    if not osp.isfile(path):
        raise FileNotFoundError(f'the checkpoint {path} does not exist')


def check_content(path: str | Path) -> None:
    """Verify the checksums in a file of ``torch.save``.

    torch writes them but does not verify them, so a byte changed on the disk
    would become a wrong weight. Files in the format before torch 1.6 have no
    checksums and pass.

    Args:
        path (str | Path): A local file.

    Raises:
        ValueError: If a checksum does not match.
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
            f'{path} is damaged: the checksum of {damaged} in it does not '
            'match its content'
        )


def safe_torch_load(file: str | Path | IO, map_location: Any = None) -> Any:
    """``torch.load`` that creates objects of allowed types only.

    Allowed are the types of ``weights_only=True``, those in mmengine's
    checkpoints and those added by ``torch.serialization.add_safe_globals``.

    Args:
        file (str | Path | IO): A local file, or a seekable binary stream.
        map_location (Any): As for ``torch.load``. Defaults to None.

    Returns:
        Any: The content of the file.

    Raises:
        ValueError: If the file is damaged, was not written by ``torch.save``,
            or contains a type that is not allowed.
    """
    if not hasattr(file, 'read'):
        with open(file, 'rb') as stream:
            return safe_torch_load(stream, map_location)
    name = getattr(file, 'name', 'the stream')
    try:
        _refuse_archives(file)
        return torch.load(
            file,
            map_location=map_location,
            pickle_module=_pickle_module(_allowed_names()),
            weights_only=False,  # the pickle module is the restriction
        )
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(name, error)) from error
    except _DAMAGED as error:
        raise ValueError(
            f'{name} is damaged or not a checkpoint of torch: {error}'
        ) from error


def _refusal(path: Any, error: Exception) -> str:
    named = re.search(r'GLOBAL ([\w.]+)', str(error))
    if named is None:
        return (
            f'{path} is damaged, not a checkpoint of torch, or contains '
            f'objects that are not allowed: {error}'
        )
    return (
        f'{path} contains an object of the type {named[1]}, which is not '
        'loaded because a pickle can execute any code. If you trust the file, '
        'load it with torch and save only its state dict.'
    )


def _refuse_archives(stream: IO) -> None:
    """Refuse the two formats that ``torch.load`` reads by other means."""
    start = stream.tell()
    # Decide as torch.load does, or a crafted file could be both.
    if serialization._is_zipfile(stream):
        with serialization._open_zipfile_reader(stream) as reader:
            if serialization._is_torchscript_zip(reader):
                raise pickle.UnpicklingError('GLOBAL torch.jit.ScriptModule')
    elif tarfile.is_tarfile(stream):
        raise pickle.UnpicklingError('it is a tar archive')
    stream.seek(start)


def _allowed_names() -> dict[str, Any]:
    """Allowed types and functions by their names in pickles."""
    names = dict(_weights_only_unpickler._get_allowed_globals())
    # What the user has allowed, where torch knows of that (from 2.4).
    added = getattr(serialization, 'get_safe_globals', list)()
    for item in (*added, HistoryBuffer, Counter, np.ndarray, np.dtype):
        item, name = (
            item
            if isinstance(item, tuple)
            else (item, f'{item.__module__}.{item.__qualname__}')
        )
        names[name] = item
    # The module's name in numpy 1 and in numpy 2.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        names[f'{module}._reconstruct'] = np.zeros(0).__reduce__()[0]
        names[f'{module}.scalar'] = np.float64(0).__reduce__()[0]
    # Last: mmengine allows any getattr while another thread loads.
    names['builtins.getattr'] = _get_statistic
    names['_codecs.encode'] = _encode_latin1
    return names


def _get_statistic(owner: type, name: str) -> Callable:
    """Replace ``getattr``, by which a HistoryBuffer stores its methods."""
    if owner is not HistoryBuffer or name not in (
        *('min', 'max', 'current', 'mean'),
    ):
        raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {name!r}')
    return getattr(owner, name)


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Replace ``codecs.encode``, by which protocol 2 stores bytes."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'GLOBAL _codecs.encode to {encoding!r}')
    return text.encode('latin1')


def _pickle_module(allowed: Mapping[str, Any]) -> SimpleNamespace:
    """Make the part of the ``pickle`` module that ``torch.load`` uses."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            # Protocol 2 has the names of Python 2.
            path = f'{module.replace("__builtin__", "builtins")}.{name}'
            if path not in allowed:
                raise pickle.UnpicklingError(f'GLOBAL {path}')
            return allowed[path]

    return SimpleNamespace(
        __name__='restricted_pickle',
        Unpickler=Unpickler,
        load=lambda file, **options: Unpickler(file, **options).load(),
    )
