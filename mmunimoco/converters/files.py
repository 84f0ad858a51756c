"""Reading what is converted, and writing what comes out."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmunimoco.utils.atomic import write_atomic, write_whole
from mmunimoco.utils.safe_load import read_checkpoint


def read_weights(path: str) -> dict:
    """Read a checkpoint of torch or a safetensors file.

    Nothing in the file is executed.

    Args:
        path (str): The file; one of safetensors ends so.

    Returns:
        dict: The checkpoint, or a bare state dict.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
        ImportError: If safetensors is needed and missing.
    """
    if not str(path).endswith('.safetensors'):
        return read_checkpoint(str(path))
    library = import_safetensors()
    if not os.path.isfile(path):
        raise FileNotFoundError(f'the checkpoint {path} does not exist')
    try:
        return library.load_file(path)
    # Its errors have no base class but this one.
    except Exception as error:
        raise ValueError(
            f'{path} is damaged or no safetensors file: {error}'
        ) from error


def import_safetensors() -> ModuleType:
    """The library's part for torch.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            'safetensors files need the library: pip install safetensors'
        ) from error
    return safetensors.torch


def check_free(path: Path, force: bool) -> None:
    """Raise if a file is there and may not be overwritten.

    Args:
        path (Path): Where something is to be written.
        force (bool): Whether it may be overwritten.

    Raises:
        FileExistsError: If it is there, unless ``force``.
        IsADirectoryError: If it is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(f'{path} is a folder, not a file')
    if path.exists() and not force:
        raise FileExistsError(f'{path} exists already (--force overwrites)')


def write_checkpoint(path: Path, content: Mapping) -> None:
    """Write a checkpoint or a state dict with torch.

    Args:
        path (Path): The file.
        content (Mapping): What to save.
    """
    write_whole(path, lambda temporary: torch.save(content, temporary))


def write_pickle(path: Path, content: Mapping) -> None:
    """Write a pickle, as detectron2 reads it, for any release of numpy.

    Args:
        path (Path): The file.
        content (Mapping): What to save.
    """

    def write(temporary: Path) -> None:
        with temporary.open('wb') as file:
            _ArrayPickler(file).dump(content)

    write_whole(path, write)


class _ArrayPickler(pickle.Pickler):
    """Names ``numpy.ndarray`` alone.

    numpy 2 would name ``numpy._core``, which older releases do not have.
    """

    def reducer_override(self, item: Any) -> Any:
        if type(item) is np.ndarray:
            return np.ndarray, ((0,), 'b'), item.__reduce__()[2]
        return NotImplemented


def write_safetensors(
    path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write weights with safetensors.

    Args:
        path (Path): The file.
        state (Mapping[str, Tensor]): Weights by key.
        metadata (Mapping[str, str]): Texts for its header.

    Raises:
        ImportError: If safetensors is not installed.
    """
    library = import_safetensors()
    tensors = {key: value.contiguous() for key, value in state.items()}
    # Loaders tell by this entry that the tensors are torch's.
    metadata = {'format': 'pt', **metadata}
    # Not save_file: that makes files which their owner alone can read.
    content = library.save(tensors, metadata=metadata)
    write_atomic(path, content)
