"""Checks of the place that a run writes to."""

import math
import shutil
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner, save_checkpoint
from mmengine.runner.checkpoint import weights_to_cpu
from torch import Tensor

from mmunimoco.engine.checkpoint_files import ATOMIC
from mmunimoco.utils.checkpoint import bare_model
from mmunimoco.utils.safe_load import read_checkpoint

from .findings import SetupError


def existing_parent(folder: Path) -> Path:
    """The folder, or the first one above it that there is.

    Raises:
        NotADirectoryError: If a file is in the way.
    """
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(f'{folder} is a file, and no folder')
    return folder


def check_checkpoint(runner: Runner, folder: Path) -> tuple[str, int]:
    """Write a checkpoint as a run does, read it back and compare it.

    Args:
        runner (Runner): After a step; before it the optimizer has no state
            to be written.
        folder (Path): In the file system of the work folder.

    Returns:
        tuple[str, int]: What was found, and the bytes of a checkpoint.
    """
    path = folder / 'setup_check.pth'
    state = bare_model(runner.model).state_dict()
    content = dict(meta={}, state_dict=weights_to_cpu(state))
    stepped = isinstance(runner.optim_wrapper, OptimWrapper)
    if stepped:
        content['optimizer'] = runner.optim_wrapper.state_dict()
    save_checkpoint(content, str(path), backend_args=dict(backend=ATOMIC))
    size = path.stat().st_size
    stored = read_checkpoint(str(path))['state_dict']
    wrong = [
        name
        for name, value in state.items()
        if name not in stored or not _same_bits(stored[name], value.cpu())
    ]
    path.unlink()
    if wrong or len(stored) != len(state):
        raise SetupError(
            f'{len(wrong)} tensors came back otherwise, such as '
            f'{(wrong or ["one too many"])[0]}',
            'this file system is not to be trusted: set work_dir elsewhere',
        )
    text = f'{size / 2**20:.0f} MB, written, read back, equal'
    return text if stepped else f'{text} (without optimizer)', size


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, NaNs included."""
    return (one.shape, one.dtype) == (other.shape, other.dtype) and (
        torch.equal(*(x.reshape(-1).view(torch.uint8) for x in (one, other)))
    )


def check_disk(cfg: Config, folder: Path, size: int) -> str:
    """Whether all checkpoints that the config keeps fit the disk."""
    count = kept_checkpoints(cfg)
    need, free = count * size, shutil.disk_usage(folder).free
    text = (
        f'{free / 2**30:.1f} GB free, {count} checkpoints at a time take '
        f'{need / 2**30:.2f} GB'
    )
    if need > free:
        raise SetupError(
            text,
            'default_hooks.checkpoint.max_keep_ckpts lower, or work_dir on a '
            'larger disk',
        )
    return text


def kept_checkpoints(cfg: Config) -> int:
    """How many there are at a time at most: one is being written."""
    options = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    best = options.get('save_best')
    best = len(best) if isinstance(best, list | tuple) else int(bool(best))
    keep = options.get('max_keep_ckpts', -1)
    if keep < 0:
        length = cfg.train_cfg.get('max_epochs')
        if not options.get('by_epoch', True) or length is None:
            length = cfg.train_cfg.get('max_iters') or 1
        keep = math.ceil(length / max(1, options.get('interval', 1)))
    return keep + best + 1
