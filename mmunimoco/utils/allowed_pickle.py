"""Reading checkpoints with a list of allowed types, where torch takes none.

Before 2.6 ``torch.load(weights_only=True)`` knows weights alone and cannot be
told more, so it refuses every checkpoint that mmengine's training writes.
"""

import pickle
import tarfile
import types
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import IO, Any

import torch
from torch import _weights_only_unpickler, serialization

# torch's own, whatever stands in its place while others load.
torch_load = torch.load


def load_allowed(
    file: str | IO, allowed: Iterable, map_location: Any = 'cpu'
) -> Any:
    """Read a file of ``torch.save``, constructing nothing but allowed types.

    Args:
        file (str | IO): The file, or a stream of it that can seek.
        allowed (Iterable): Types and functions besides torch's own list, as
            ``torch.serialization.safe_globals`` takes them: an object, or a
            pair of one and the dotted name that pickles have for it.
        map_location (Any): As for ``torch.load``. Defaults to 'cpu'.

    Returns:
        Any: What is in the file.

    Raises:
        pickle.UnpicklingError: If it holds anything else, or is a TorchScript
            or tar archive, which would not be read by this list.
    """
    _refuse_archives(file)
    return torch_load(
        file,
        map_location=map_location,
        pickle_module=_pickle_module(_by_name(allowed)),
        weights_only=False,  # what is allowed is decided by the module
    )


def _refuse_archives(file: str | IO) -> None:
    is_zip, is_tar = zipfile.is_zipfile(file), False
    _rewind(file)
    if is_zip:
        with serialization._open_zipfile_reader(file) as reader:
            is_script = serialization._is_torchscript_zip(reader)
        if is_script:
            raise pickle.UnpicklingError('GLOBAL torch.jit.ScriptModule')
    else:
        is_tar = tarfile.is_tarfile(file)
    if is_tar:
        raise pickle.UnpicklingError('it is a tar archive')
    _rewind(file)


def _rewind(file: str | IO) -> None:
    if hasattr(file, 'seek'):
        file.seek(0)


def _by_name(allowed: Iterable) -> dict[str, Any]:
    """Allowed objects by the names that pickles have for them."""
    # The first two are on torch's list in later releases only: milestones of
    # schedules, and the bytes of numpy's numbers in protocol 2.
    names = {
        'collections.Counter': Counter,
        '_codecs.encode': _encode,
        **_weights_only_unpickler._get_allowed_globals(),
    }
    for item in allowed:
        if isinstance(item, tuple):
            item, name = item
        else:
            name = f'{item.__module__}.{item.__qualname__}'
        names[name] = item
    return names


def _encode(text: str, encoding: str) -> bytes:
    """Stand in for ``codecs.encode``, which would import any codec."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'GLOBAL _codecs.encode to {encoding!r}')
    return text.encode('latin1')


def _pickle_module(allowed: Mapping[str, Any]) -> types.SimpleNamespace:
    """What ``torch.load`` uses of a ``pickle_module``."""

    class Unpickler(pickle.Unpickler):
        """Imports nothing: a name is on the list or refused."""

        def find_class(self, module: str, name: str) -> Any:
            # What the modules of Python 2 are called in protocol 2.
            module, name = NAME_MAPPING.get((module, name), (module, name))
            path = f'{IMPORT_MAPPING.get(module, module)}.{name}'
            if path not in allowed:
                raise pickle.UnpicklingError(f'GLOBAL {path}')
            return allowed[path]

    return types.SimpleNamespace(
        __name__='allowed_pickle',
        Unpickler=Unpickler,
        load=lambda file, **options: Unpickler(file, **options).load(),
    )
