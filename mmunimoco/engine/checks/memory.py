"""Memory that kNN and a training step need, and that there is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

_GB = 2**30


@dataclass(frozen=True)
class Advice:
    """What will go wrong or be in vain, and what to change."""

    name: str  # of the kind; PreflightHook(accept=...) takes it
    text: str
    fix: str
    stops: bool = False  # the run, later: an error unless it is accepted


@dataclass(frozen=True)
class Sizes:
    """Numbers of images, and of processes that train.

    ``bank`` and ``queries`` are those of kNN, 0 if it does not validate.
    """

    images: int
    processes: int = 1
    bank: int = 0
    queries: int = 0


def part(cfg: Mapping, *names: str) -> Mapping:
    """A dictionary in a config; an empty one if it is absent or a list."""
    for name in names:
        cfg = cfg.get(name)
        if not isinstance(cfg, Mapping):
            return {}
    return cfg


def knn_memory(cfg: Mapping, sizes: Sizes) -> dict[str, float]:
    """Bytes that kNN validation keeps, by what they are for."""
    val_cfg = part(cfg, 'val_cfg')
    dim = part(cfg, 'model', 'neck').get('in_channels')
    if not sizes.bank or not isinstance(dim, int):
        return {}
    width = 2 if val_cfg.get('bank_dtype') == 'float16' else 4
    k = val_cfg.get('k', 20)
    k = k if isinstance(k, int) else max(k)
    # Batches are collected, then concatenated; a neighbour is a float and an
    # index.
    per_query = 2 * dim * 4 + k * (4 + 8)
    return {
        f'the kNN bank ({sizes.bank} x {dim})': sizes.bank * dim * width,
        f'the kNN queries ({sizes.queries} x {dim})': (
            sizes.queries * per_query
        ),
    }


def check_memory(
    needs: Mapping[str, float], available: float | None = None
) -> Advice | None:
    """Compare bytes that will be needed with those that are free.

    Args:
        needs (Mapping[str, float]): Bytes by what they are for.
        available (float, optional): Defaults to :func:`available_memory`.
    """
    available = available_memory() if available is None else available
    total = sum(needs.values())
    if not needs or available is None or total <= available:
        return None
    parts = ', '.join(f'{x / _GB:.1f} GB for {n}' for n, x in needs.items())
    return Advice(
        'memory',
        f'about {total / _GB:.1f} GB of memory are needed ({parts}), but '
        f'{available / _GB:.1f} GB are available',
        "val_cfg.bank_dtype='float16' and a smaller bank "
        '(val_cfg.bank_dataloader.dataset.indices=N) need less for kNN, a '
        'smaller train_dataloader.batch_size less for a step',
    )


def available_memory() -> float | None:
    """Bytes of memory this process can still take; None if unknown."""
    try:
        text = Path('/proc/meminfo').read_text()
    except OSError:  # not Linux
        return None
    fields = dict(line.split(':') for line in text.splitlines())
    free = 1024 * float(fields['MemAvailable'].split()[0])
    group = Path('/sys/fs/cgroup')
    try:  # a container may be allowed less than the machine has
        limit = float((group / 'memory.max').read_text())
        used = float((group / 'memory.current').read_text())
        stat = (group / 'memory.stat').read_text().splitlines()
        cached = dict(line.split() for line in stat)['inactive_file']
        free = min(free, limit - used + float(cached))
    except (OSError, ValueError, KeyError):  # no such file, or 'max'
        pass
    return free


class SavedTensors:
    """Count the bytes of activations that a step keeps for its backward.

    The pack hook of ``torch.autograd.graph.saved_tensors_hooks``; afterwards
    ``bytes`` has the sum. Parameters and buffers do not count.

    Args:
        model (nn.Module): The model.
    """

    def __init__(self, model: nn.Module) -> None:
        tensors = [*model.parameters(), *model.buffers()]
        self._seen = {x.untyped_storage().data_ptr() for x in tensors}
        self.bytes = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor
