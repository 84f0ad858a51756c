"""Files and fields of configs."""

import io
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from mmunimoco.engine.checks.config_fields import check_fields


def resolve(path: Path, name: str) -> str:
    """A file that a study file names: relative to its folder.

    Raises:
        FileNotFoundError: If it does not exist.
    """
    if name == 'none' or '://' in name:
        return name
    found = path.parent / Path(name).expanduser()
    if not found.is_file():
        raise FileNotFoundError(
            f'{path} names {name}, but {found} does not exist (paths are '
            'relative to the study file)'
        )
    return str(found.resolve())


def load_config(path: str) -> Config:
    """A config, to be changed; a file is read once for all runs."""
    return deepcopy(_read_config(path))


_read_config = cache(Config.fromfile)


def apply_overrides(cfg: Config, overrides: Mapping[str, Any]) -> None:
    """Merge dotted fields into a config.

    Raises:
        ValueError: If a field has no place in the config.
    """
    for name in overrides:
        node, parts = cfg.to_dict(), name.split('.')
        for index, part in enumerate(parts[:-1]):
            items = enumerate(node) if isinstance(node, list) else node.items()
            node = {str(key): value for key, value in items}.get(part)
            if not isinstance(node, (dict, list)):
                place = '.'.join(parts[: index + 1])
                raise ValueError(
                    f'{name!r} has no place in {cfg.filename}: there is no '
                    f'dict or list {place!r}'
                )
    check_fields(cfg, overrides)
    cfg.merge_from_dict(dict(overrides))


def label_ratio(cfg: Mapping) -> float | None:
    """Share of labels of a pre-training; None if it is not set."""
    loader = cfg.get('train_dataloader') or {}
    for node in partial_labels(loader.get('dataset')):
        if node.get('label_ratio') is not None:
            return float(node['label_ratio'])
    return None


def partial_labels(node: Any) -> Iterator[dict]:
    """Configs of ``PartialLabels`` in that of a dataset."""
    return _of_type(node, 'PartialLabels')


def named_files(cfg: Mapping, trains: bool) -> Iterator[str]:
    """Paths of the lists of labels and of the weights that a run reads.

    Helper variables of a config file are no part of the run, so only fields
    that the runner reads are searched.

    Args:
        cfg (Mapping): Resolved config.
        trains (bool): Whether it trains; a test reads its own data alone.

    Yields:
        str: A path or URL, as the config has it.
    """
    found = []
    for stage in ('train', 'val', 'test') if trains else ('test',):
        data = [cfg.get(f'{stage}_dataloader'), cfg.get(f'{stage}_cfg')]
        found += [node.get('label_list') for node in partial_labels(data)]
    if trains:
        weights = _of_type(cfg.get('model'), 'Pretrained')
        found += [node.get('checkpoint') for node in weights]
        found.append(cfg.get('load_from'))
    yield from filter(None, found)


def _of_type(node: Any, name: str) -> Iterator[dict]:
    """All dicts in a config whose type ends with this name."""
    if isinstance(node, Mapping):
        if str(node.get('type')).endswith(name):
            yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from _of_type(item, name)


def count_steps(cfg: Config, gpus: int) -> int | None:
    """Optimizer steps (or forward steps, if accumulated) of a training.

    The dataset is built to know its length, once for all runs that share it.

    Returns:
        int | None: None if the dataset cannot be built here.
    """
    loop, loader = cfg.get('train_cfg') or {}, cfg.train_dataloader
    if 'max_iters' in loop:
        return loop['max_iters']
    dataset = deepcopy(loader.dataset.to_dict())
    for node in partial_labels(dataset):
        node['seed'] = 0  # which images are labeled changes no length
    text = json.dumps(dataset, sort_keys=True, default=str)
    images = _dataset_length(text, cfg.get('default_scope', 'mmpretrain'))
    batch = loader.get('batch_size')
    if images is None or not batch or 'max_epochs' not in loop:
        return None
    share = math.ceil(images / gpus)
    full = loader.get('drop_last', False)
    return loop['max_epochs'] * (
        share // batch if full else math.ceil(share / batch)
    )


@cache
def _dataset_length(text: str, scope: str) -> int | None:
    try:
        with (
            DefaultScope.overwrite_default_scope(scope),
            redirect_stdout(io.StringIO()),  # pycocotools says that it reads
        ):
            return len(DATASETS.build(json.loads(text)))
    # Whatever is wrong, the run itself says it better.
    except Exception:
        return None
