"""mmengine's loader of checkpoints, for files, URLs and model zoos, made safe.

``load_from``, ``--resume``, ``mmengine.runner.load_checkpoint`` and the
``Pretrained`` initializer all read through schemes that mmengine registers by
prefix: ``''``, ``https://``, ``torchvision://``, ``open-mmlab://``, ``s3://``
and others. Some of mmengine's releases execute what a file holds, others do
when it holds more than weights. Here each scheme is registered again, around
itself: while it is at work, torch reads with the list of allowed types.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from mmengine.runner.checkpoint import CheckpointLoader

from .safe_load import safe_torch_load


def make_schemes_safe() -> None:
    """Have mmengine read checkpoints without executing what is in them.

    Called when mmunimoco is imported; a second call changes nothing.
    """
    for prefix, loader in list(CheckpointLoader._schemes.items()):
        if not getattr(loader, 'reads_safely', False):
            CheckpointLoader.register_scheme(
                prefix, _reading_safely(loader), force=True
            )


def _reading_safely(loader: Callable) -> Callable:
    # mmengine shows the name of the function in the log.
    @wraps(loader)
    def load(filename: str, map_location: Any = None, **options: Any) -> Any:
        with _torch_reads_safely():
            return loader(filename, map_location, **options)

    load.reads_safely = True
    return load


@contextmanager
def _torch_reads_safely() -> Iterator[None]:
    """Stand in for ``torch.load``, whatever ``weights_only`` it is given."""

    def load(f: Any, map_location: Any = None, *_: Any, **__: Any) -> Any:
        return safe_torch_load(f, map_location)

    theirs, torch.load = torch.load, load
    try:
        yield
    finally:
        torch.load = theirs
