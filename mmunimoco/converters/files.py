"""Read what is converted, and write the result."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from mmunimoco.utils.atomic import write_atomic, write_whole
from mmunimoco.utils.safe_load import read_checkpoint


def read_weights(path: str | Path) -> dict:
    """Read a checkpoint of torch or a safetensors file, executing nothing.

    Args:
        path (str | Path): The file, ``.safetensors`` or any other name.

    Returns:
        dict: The checkpoint, or a bare state dict.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
        ImportError: If safetensors is required and not installed.
    """
    path = Path(path)
    if path.suffix != '.safetensors':
        return read_checkpoint(path)
    library = _import_safetensors()
    if not path.is_file():
        raise FileNotFoundError(f'the checkpoint {path} does not exist')
    try:
        return library.load_file(path)
    except Exception as error:  # its exceptions have no common base class
        raise ValueError(
            f'{path} is damaged or not a safetensors file: {error}'
        ) from error


def check_free(path: Path, force: bool) -> None:
    """Raise if a file cannot be written, or must not be overwritten.

    Args:
        path (Path): The file to be written; its folder may be missing.
        force (bool): Whether it may be overwritten.

    Raises:
        FileExistsError: If it exists, unless ``force``.
        IsADirectoryError: If it is a folder.
        NotADirectoryError: If its folder is a file.
        PermissionError: If nothing can be written in its folder.
    """
    if path.is_dir():
        raise IsADirectoryError(f'{path} is a folder, not a file')
    folder = next(p for p in path.absolute().parents if p.exists())
    if not folder.is_dir():
        raise NotADirectoryError(f'{folder} is a file, not a folder')
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f'{folder} cannot be written to')
    if path.exists() and not force:
        raise FileExistsError(f'{path} exists already (--force overwrites)')


def write_checkpoint(path: Path, content: Mapping) -> None:
    """Write a checkpoint or a state dict with torch.

    Args:
        path (Path): The file.
        content (Mapping): What to save.
    """
    write_whole(path, lambda temporary: torch.save(content, temporary))


def write_safetensors(
    path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write weights with safetensors.

    Args:
        path (Path): The file.
        state (Mapping[str, Tensor]): Weights by key.
        metadata (Mapping[str, str]): Entries of its header.

    Raises:
        ImportError: If safetensors is not installed.
    """
    library = _import_safetensors()
    tensors = {key: value.contiguous() for key, value in state.items()}
    # 'format' tells loaders that the tensors are torch's. Not save_file,
    # whose files only their owner can read.
    content = library.save(tensors, metadata={'format': 'pt', **metadata})
    write_atomic(path, content)


def _import_safetensors() -> ModuleType:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            'safetensors files need the library: pip install safetensors'
        ) from error
    return safetensors.torch
