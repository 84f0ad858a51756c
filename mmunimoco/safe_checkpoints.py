"""Have mmengine read all checkpoints without executing what they contain.

Import this module, in a config by::

    custom_imports = dict(
        imports=['mmunimoco', 'mmunimoco.safe_checkpoints'],
        allow_failed_imports=False)

``load_from``, ``--resume``, ``mmengine.runner.load_checkpoint`` and the
``Pretrained`` initializer choose a loader by the prefix of the file name
(``CheckpointLoader.register_scheme``). mmengine's own loaders execute what a
file contains, depending on the release always or when it contains more than
weights. This module registers one in place of each of them; a file with
objects of other types than :mod:`mmunimoco.utils.safe_load` allows is refused
with a ValueError. Nothing but that registry changes.
"""

import io
import os.path as osp
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.fileio import get_file_backend
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from mmunimoco.converters.files import read_weights
from mmunimoco.utils.config_errors import closest
from mmunimoco.utils.installed import find_weights
from mmunimoco.utils.safe_load import check_is_file, safe_torch_load


# mmengine's log names a loader by what follows "load_from_".
@CheckpointLoader.register_scheme('', force=True)
def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a local file."""
    filename = osp.expanduser(filename)
    check_is_file(filename)
    return safe_torch_load(filename, map_location)


@CheckpointLoader.register_scheme(('http://', 'https://'), force=True)
def load_from_http(filename: str, map_location: Any = None) -> Any:
    """Download a file to torch.hub's cache, unless it is there; read it."""
    name = osp.basename(urlparse(filename).path)
    path = Path(torch.hub.get_dir(), 'checkpoints', name)
    try:
        if get_rank() == 0:
            _download(filename, path)
    finally:
        barrier()
    _download(filename, path)  # the cache of another machine
    return safe_torch_load(path, map_location)


def _download(url: str, path: Path) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # It writes to a temporary file, which it renames.
        torch.hub.download_url_to_file(
            url, str(path), progress=sys.stderr.isatty()
        )
    except OSError as error:
        raise OSError(
            f'cannot download {url} to {path}: {error}. Check the address '
            'and the network, or download the file by other means and give '
            'its local path.'
        ) from error


@CheckpointLoader.register_scheme(
    ('modelzoo://', 'torchvision://'), force=True
)
def load_from_torchvision(filename: str, map_location: Any = None) -> Any:
    """Read ``torchvision://<model>``, such as ``torchvision://resnet50``."""
    urls = mmengine_checkpoint.get_torchvision_models()
    return load_from_http(_look_up(filename, urls), map_location)


@CheckpointLoader.register_scheme(
    ('open-mmlab://', 'openmmlab://'), force=True
)
def load_from_openmmlab(filename: str, map_location: Any = None) -> Any:
    """Read ``open-mmlab://<model>``: a URL, or a file in mmengine's home."""
    scheme, _, name = filename.partition('://')
    renamed = mmengine_checkpoint.get_deprecated_model_names()
    filename = f'{scheme}://{renamed.get(name, name)}'
    url = _look_up(filename, mmengine_checkpoint.get_external_models())
    if url.startswith(('http://', 'https://')):
        return load_from_http(url, map_location)
    home = mmengine_checkpoint._get_mmengine_home()
    return load_from_local(osp.join(home, url), map_location)


@CheckpointLoader.register_scheme('mmcls://', force=True)
def load_from_mmcls(filename: str, map_location: Any = None) -> dict:
    """Read the backbone of ``mmcls://<model>``."""
    urls = mmengine_checkpoint.get_mmcls_models()
    checkpoint = load_from_http(_look_up(filename, urls), map_location)
    return mmengine_checkpoint._process_mmcls_checkpoint(checkpoint)


@CheckpointLoader.register_scheme('mmunimoco://', force=True)
def load_from_mmunimoco(filename: str, map_location: Any = None) -> dict:
    """Read ``mmunimoco://<config>``, a backbone of this project."""
    return read_weights(find_weights(filename.partition('://')[2]))


def _look_up(filename: str, urls: Mapping[str, str]) -> str:
    name = filename.partition('://')[2]
    if name not in urls:
        raise ValueError(
            f'{filename}: mmengine has no URL for the model {name!r}'
            f'{closest(name, urls)}'
        )
    return urls[name]


@CheckpointLoader.register_scheme(
    [r'(\S+\:)?s3://', r'(\S+\:)?petrel://'], force=True
)
def load_from_ceph(filename: str, map_location: Any = None) -> Any:
    """Read an object of a store that mmengine's petrel backend knows."""
    backend = get_file_backend(filename, backend_args={'backend': 'petrel'})
    with io.BytesIO(backend.get(filename)) as stream:
        return safe_torch_load(stream, map_location)


@CheckpointLoader.register_scheme('pavi://', force=True)
def load_from_pavi(filename: str, map_location: Any = None) -> NoReturn:
    """Refuse the one scheme that is not read here."""
    raise ValueError(
        f'{filename}: mmunimoco.safe_checkpoints does not read pavi://. '
        'Download the file and give its local path, or remove the module '
        'from custom_imports if you trust the file.'
    )
