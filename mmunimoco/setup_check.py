"""Check in under a minute whether a pre-training config would run here.

It loads some images, counts the labels, compares settings with data and
machine, trains for one real step and writes one checkpoint, in a folder that
is removed afterwards.
"""

import errno
import os.path as osp
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS

from mmunimoco.datasets.annotations import find_leaves, read_samples
from mmunimoco.datasets.class_names import check_classes_agree
from mmunimoco.datasets.skip_broken import list_broken, replaced_files
from mmunimoco.engine.checks.config_values import (
    advise,
    check_topk,
    images_per_step,
)
from mmunimoco.engine.checks.memory import Advice, Sizes
from mmunimoco.engine.launch import read_config
from mmunimoco.setup_step import (
    SetupError,
    build,
    check_space,
    estimate_memory,
    make_folder,
    save,
    train_one_step,
)
from mmunimoco.utils.checkpoint import bare_model
from mmunimoco.utils.config_errors import named_field, part_of_config
from mmunimoco.utils.versions import collect_versions

SAMPLES = 16  # loaded, besides the first and the last
_DATA = (
    'set train_dataloader.dataset (in most configs by data_root) to the '
    'location of the images, or correct their list; docs/own_data.md shows '
    'layouts and lists'
)
_DISK = 'set work_dir to a folder with space to which you may write'
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# What to change if a check fails, unless its error says so.
_FIXES = {
    'config': 'correct the config',
    'data': _DATA,
    'samples': _DATA,
    'labels': 'correct the labels, label_ratio or label_list',
    'evaluation': 'correct val_dataloader and val_cfg.bank_dataloader, or '
    'train with --no-validate',
    'work folder': _DISK,
    'model': 'correct model in the config',
    'step': 'see the error; smaller batches, gradient_checkpointing=True in '
    'StepOptionsHook and mixed precision (--amp) need less memory',
    'checkpoint': _DISK,
    'disk': _DISK,
}


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    ok: bool | None  # None if it was skipped
    text: str
    fix: str = ''  # what to change if it failed
    warning: bool = False  # it would run, but hardly as meant


def verify_setup(
    config: str | Path,
    cfg_options: dict | None = None,
    work_dir: str | None = None,
    processes: int = 1,
) -> list[Finding]:
    """Check a pre-training config; one failed check does not stop the rest.

    Args:
        config (str | Path): Path of the config.
        cfg_options (dict, optional): Changes, as in ``--cfg-options``.
        work_dir (str, optional): Where the run would write. Defaults to that
            of the config, or ``work_dirs/<name of the config>``.
        processes (int): With how many the run will start. Defaults to 1.

    Returns:
        list[Finding]: In the order of the checks.
    """
    report = _Report()
    report.check('versions', _describe_versions)
    cfg = report.check(
        'config', lambda: _load_config(Path(config), cfg_options, work_dir)
    )
    if cfg is None:
        return report.findings
    dataset = report.check('data', _build_dataset, cfg)
    report.check('samples', _load_samples, dataset)
    report.check('labels', _count_labels, cfg, dataset)
    evaluated = report.check(
        'evaluation', lambda: _load_evaluation_samples(cfg, dataset)
    )
    with ExitStack() as stack:
        folder = report.check('work folder', make_folder, cfg, stack)
        runner = report.check('model', build, cfg, folder)
        sizes = report.check(
            'settings', _measure, cfg, dataset, evaluated, processes
        )
        report.warn(_compare_settings, cfg, runner, sizes, evaluated)
        done = report.check('step', train_one_step, runner, dataset)
        report.check('memory', estimate_memory, cfg, sizes, done)
        size = report.check('checkpoint', save, runner, done)
        report.check('disk', check_space, cfg, sizes, size)
    return report.findings


class _Report:
    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def check(
        self, name: str, function: Callable[..., tuple[str, Any]], *needed: Any
    ) -> Any:
        """Run a check, unless one of the values it needs is None.

        ``function`` returns a text and a value for other checks. Returns this
        value, None if the check failed or was skipped.
        """
        value = None
        if any(each is None for each in needed):
            finding = Finding(name, None, 'there is a problem above')
        else:
            try:
                text, value = function(*needed)
                finding = Finding(name, True, text)
            except SetupError as error:
                finding = Finding(name, False, str(error), error.fix)
            except Exception as error:  # whatever the config leads to
                full = getattr(error, 'errno', None) in _DISK_ERRORS
                fix = _DISK if full else _FIXES.get(name, '')
                finding = Finding(name, False, _one_line(error), fix)
        self.findings.append(finding)
        return value

    def warn(
        self, function: Callable[..., list[Advice]], *needed: Any
    ) -> None:
        """Add what ``function`` advises, unless a value it needs is None."""
        if all(each is not None for each in needed):
            self.findings += [
                Finding(
                    x.name, not x.stops, x.text, x.fix, warning=not x.stops
                )
                for x in function(*needed)
            ]


def _one_line(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'.strip().splitlines()[0]


def _describe_versions() -> tuple[str, bool]:
    versions = dict(collect_versions(), device=get_device())
    return ', '.join(f'{name} {v}' for name, v in versions.items()), True


def _load_config(
    path: Path, options: dict | None, work_dir: str | None
) -> tuple[str, Config]:
    cfg = read_config(path, options)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', path.stem)
    needed = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    missing = [name for name in needed if cfg.get(name) is None]
    if missing:
        raise SetupError(
            f'{path} has no {", ".join(missing)}',
            'use a pre-training config, such as those in configs/unimoco',
        )
    return str(path), cfg


def _build_dataset(cfg: Config) -> tuple[str, Any]:
    with named_field('train_dataloader'), part_of_config('dataset'):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        dataset.full_init()
    count, batch = len(dataset), cfg.train_dataloader.batch_size
    if count == 0:
        raise ValueError('there are no images')
    if count < batch and cfg.train_dataloader.get('drop_last'):
        raise SetupError(
            f'{count} images do not fill one batch of {batch}',
            f'set train_dataloader.batch_size={count} or less, or '
            'train_dataloader.drop_last=False',
        )
    kinds = {type(leaf).__name__ for leaf in find_leaves(dataset)}
    return f'{count} images of {", ".join(sorted(kinds))}', dataset


def _load_samples(dataset: Any) -> tuple[str, bool]:
    """Load the first, the last and some random samples."""
    count = len(dataset)
    drawn = random.Random(0).sample(range(count), min(SAMPLES, count))
    indices = sorted({0, count - 1, *drawn})
    failures, replaced, views = [], {}, None
    for index in indices:
        try:
            sample = dataset[index]
        except Exception as error:  # of any backend or transform
            failures.append(f'{index}: {_one_line(error)}')
            continue
        if isinstance(sample, dict):
            replaced.update(replaced_files(sample.get('data_samples')))
            views = views or _describe_views(sample.get('inputs'))
    if failures:
        raise SetupError(
            f'{len(failures)} of {len(indices)} samples do not load: '
            + '; '.join(failures[:3]),
            'repair or remove the files, or wrap the dataset in '
            'dict(type="SkipBrokenImages", max_broken=N, dataset=...), which '
            'replaces up to N broken files',
        )
    text = f'{len(indices)} samples load, each {views}'
    if replaced:
        text += f'; broken files are replaced:{list_broken(replaced)}'
    return text, True


def _describe_views(inputs: Any) -> str:
    """Such as '2 views of 3 x 224 x 224, torch.uint8'."""
    views = inputs if isinstance(inputs, list | tuple) else [inputs]
    if not getattr(views[0], 'shape', ()):
        return 'an index (the images are on the device)'
    size = ' x '.join(map(str, views[0].shape))
    return f'{len(views)} views of {size}, {views[0].dtype}'


def _count_labels(cfg: Config, dataset: Any) -> tuple[str, bool]:
    leaves = find_leaves(dataset)
    table = read_samples(leaves)
    total, labeled = len(table.paths), int(table.has_label.sum())
    if labeled == 0:
        return f'none of {total} images has a label: equal to MoCo v2', True
    counts = np.bincount(table.classes)
    limits = {'model.head.num_classes': cfg.model.head.get('num_classes')}
    for leaf in leaves:
        classes = leaf.metainfo.get('classes') or ()
        limits[f'the list of classes of {type(leaf).__name__}'] = len(classes)
    for field, limit in limits.items():
        if limit and len(counts) > limit:
            raise SetupError(
                f'there is a label {len(counts) - 1}, but {field} allows '
                f'{limit} classes',
                f'set {field} to {len(counts)} or more, or correct the labels',
            )
    counts = counts[counts > 0]
    text = f'{len(counts)} classes with {counts.min()} to {counts.max()}'
    return f'{labeled} of {total} images have a label, {text} each', True


def _load_evaluation_samples(
    cfg: Config, dataset: Any | None
) -> tuple[str, dict]:
    """Build the data sets of validation, and load two samples of each.

    The value are the data sets. Class ids have to mean the same as in training
    (``dataset``, if it could be built).
    """
    bank = (cfg.get('val_cfg') or {}).get('bank_dataloader')
    loaders = {
        'val_dataloader': cfg.get('val_dataloader'),
        'val_cfg.bank_dataloader': bank,
    }
    texts, datasets = [], {}
    for field, loader in loaders.items():
        if not loader:
            continue
        one = datasets[field] = DATASETS.build(loader.dataset)
        if not len(one):
            raise ValueError(f'{field} has no images')
        for index in {0, len(one) - 1}:
            one[index]
        texts.append(f'{field}: {len(one)} images')
        if bank:
            _check_knn_labels(field, one)
    trained = {} if dataset is None else {'train_dataloader': dataset}
    # Class ids that mean another class elsewhere are an error.
    named = {**trained, **datasets}
    check_classes_agree({f'{x}.dataset': named[x] for x in named})
    return '; '.join(texts) or 'the config does not validate', datasets


def _check_knn_labels(field: str, dataset: Any) -> None:
    """Refuse labels that kNN does: several an image, or too few."""
    try:
        table = read_samples(find_leaves(dataset))
    except TypeError:  # no dataset of mmengine's kind
        return
    counts = np.diff(table.offsets)
    if len(counts) != len(dataset):  # a wrapper chooses among them
        return
    if counts.max() > 1:
        raise ValueError(
            f'{field}: {table.names[counts.argmax()]} has {counts.max()} '
            'labels, but kNN needs one label per image'
        )
    is_query = field == 'val_dataloader'
    labeled = int(table.has_label.sum())
    if labeled < (len(counts) if is_query else 1):
        raise ValueError(
            f'{field}: {labeled} of {len(counts)} images have a label, but '
            f'kNN needs {"all of them" if is_query else "labels"}'
        )


def _measure(
    cfg: Config, dataset: Any, evaluated: dict, processes: int
) -> tuple[str, Sizes]:
    """Count what the settings are compared with."""
    bank = evaluated.get('val_cfg.bank_dataloader', ())
    queries = evaluated.get('val_dataloader', ()) if bank else ()
    sizes = Sizes(len(dataset), processes, len(bank), len(queries))
    step = images_per_step(cfg, processes)
    text = f'{step} images an optimizer step with --processes {processes}'
    return text, sizes


def _compare_settings(
    cfg: Config, runner: Runner, sizes: Sizes, evaluated: dict
) -> list[Advice]:
    """What will go wrong or be in vain, though the run would start."""
    queries = evaluated.get('val_dataloader')
    classes = getattr(queries, 'metainfo', {}).get('classes') or ()
    found = advise(cfg, bare_model(runner.model), sizes)
    found += check_topk(cfg, len(classes))
    return [advice for advice in found if advice.name != 'memory']
