"""Named protocols: what an evaluation runs, and which metrics it reports.

An evaluation is a dictionary in the study file. Its ``type`` is one of
:data:`PROTOCOLS`; all of it is stored with each result.
"""

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.visualization import LocalVisBackend
from mmpretrain.registry import VISBACKENDS

from .configs import apply_overrides, load_config, partial_labels, resolve
from .fields import (
    COUNT,
    COUNTS,
    FLAG,
    INDEX,
    NAME_OR_NAMES,
    NAMES,
    NOT_NEGATIVE,
    OVERRIDES,
    POSITIVE,
    TEXT,
    Kind,
    check_entry,
)
from .process import SINGLE

PACKAGE = Path(__file__).resolve().parents[1]
# Name of the runs that are evaluated.
PRETRAIN = 'pretrain'
CHECKPOINT = 'model.backbone.init_cfg.checkpoint'


@dataclass(frozen=True)
class Protocol:
    """What a type of evaluation takes.

    Attributes:
        options: Its own fields in the study file, and their kind.
        metric: Name of the metric that is reported by default.
        trains: Whether it trains, from the config that it names.
    """

    options: dict[str, Kind]
    metric: str | None
    trains: bool


PROTOCOLS = {
    'knn': Protocol(
        dict(k=COUNTS, temperature=POSITIVE, layer=INDEX), 'knn/top1', False
    ),
    'cached_linear': Protocol(
        dict(l2=NOT_NEGATIVE, max_iter=COUNT), 'top1', False
    ),
    'linear': Protocol({}, 'accuracy/top1', True),
    'finetune': Protocol({}, 'accuracy/top1', True),
    # Any config of mmdet or mmseg; its metric must be named.
    'transfer': Protocol({}, None, True),
}
_TRAINING_OF_BACKBONE = ('frozen_stages', 'init_cfg', 'norm_eval')
_SHARED = dict(
    type=TEXT,
    config=TEXT,
    overrides=OVERRIDES,
    metric=NAME_OR_NAMES,
    variants=NAMES,
    lower_is_better=FLAG,
    scale=POSITIVE,
)


def check_evaluation(path: Path, name: Any, settings: Any) -> dict:
    """Check an evaluation and complete it.

    Args:
        path (Path): The study file.
        name (Any): Name of the evaluation.
        settings (Any): Its fields.

    Returns:
        dict: With ``metrics``, a list, and ``config`` as an absolute path.

    Raises:
        ValueError: If the type is unknown, or a field unknown, missing or
            not of its kind.
        FileNotFoundError: If its config does not exist.
    """
    place = f'{path}: evaluations.{name}'
    if not isinstance(name, str) or not isinstance(settings, Mapping):
        raise ValueError(
            f'{place} must be a dict, and its name a text; got {settings!r}'
        )
    kind = settings.get('type')
    protocol = PROTOCOLS.get(kind) if isinstance(kind, str) else None
    if protocol is None or name == PRETRAIN:
        raise ValueError(
            f'{place} needs a name other than "pretrain" and a type among '
            f'{", ".join(PROTOCOLS)}, got {kind!r}'
        )
    check_entry(place, settings, _SHARED | protocol.options)
    settings = dict(settings)
    if protocol.trains and 'config' not in settings:
        raise ValueError(f'{place}: config is missing, what to train')
    metric = settings.pop('metric', protocol.metric)
    if not metric:
        raise ValueError(
            f'{place}: metric is missing, such as "coco/bbox_mAP" or "mIoU"'
        )
    metrics = [metric] if isinstance(metric, str) else list(metric)
    if 'config' in settings:
        settings['config'] = resolve(path, settings['config'])
    return dict(settings, metrics=metrics)


def metric_of(place: str, entry: Mapping, evaluations: Mapping) -> str:
    """The metric that an entry means, by default the evaluation's first.

    Args:
        place (str): Where the entry is, for messages.
        entry (Mapping): With ``evaluation`` and perhaps ``metric``.
        evaluations (Mapping): Checked evaluations.

    Raises:
        ValueError: If there is no such evaluation or metric.
    """
    name = entry['evaluation']
    if name not in evaluations:
        raise ValueError(
            f'{place}.evaluation is {name!r}, which is no evaluation of the '
            'study'
        )
    metrics = evaluations[name]['metrics']
    metric = entry.get('metric', metrics[0])
    if metric not in metrics:
        raise ValueError(
            f'{place}.metric is {metric!r}; {name} reports '
            f'{", ".join(metrics)}'
        )
    return metric


def evaluation_config(
    settings: Mapping,
    run_config: Config,
    overrides: Mapping,
    seed: int,
    label_seed: bool,
) -> Config:
    """The config of an evaluation, without the checkpoint.

    Args:
        settings (Mapping): From :func:`check_evaluation`.
        run_config (Config): Resolved config of the pre-training.
        overrides (Mapping): Those of the variant. What changes its backbone
            changes that of the evaluation too.
        seed (int): Seed of the run.
        label_seed (bool): Whether it also chooses the labeled images, where
            the evaluation does not say which.
    """
    if 'config' in settings:
        cfg = load_config(settings['config'])
        apply_overrides(cfg, _of_architecture(overrides))
        cfg.merge_from_dict({'randomness.seed': seed})
    else:
        cfg = deepcopy(run_config)
    if settings['type'] == 'knn':
        if (cfg.get('test_cfg') or {}).get('bank_dataloader') is None:
            raise ValueError(
                f'{cfg.filename} has no kNN test (test_cfg.bank_dataloader): '
                'give the evaluation config=, such as a pre-training config'
            )
        options = {
            f'test_cfg.{key}': settings[key]
            for key in ('k', 'temperature')
            if key in settings
        }
        if 'layer' in settings:
            options['model.backbone.out_indices'] = (settings['layer'],)
        cfg.merge_from_dict(options)
    before, own = deepcopy(cfg), settings.get('overrides') or {}
    apply_overrides(cfg, own)
    if label_seed:
        _seed_labels(cfg, before, settings['type'], own, seed)
    if PROTOCOLS[settings['type']].trains:
        init = cfg.model.backbone.get('init_cfg')
        kind = init.get('type') if isinstance(init, dict) else None
        if not str(kind).endswith('Pretrained'):
            raise ValueError(
                f'{cfg.filename} does not start from a checkpoint: '
                'model.backbone.init_cfg must be dict(type="Pretrained", '
                f'prefix="backbone.", checkpoint=""), got {init!r}'
            )
        if not tests_afterwards(cfg):
            _check_backends(cfg)
    return cfg


def _check_backends(cfg: Config) -> None:
    """Scores of validations are read from what a local backend writes."""
    backends = (cfg.get('visualizer') or {}).get('vis_backends')
    if backends is None:  # mmengine's default is one
        return
    kinds = [VISBACKENDS.get(str(x.get('type'))) for x in backends]
    # An unknown one may come with a package that the run imports.
    if not any(x is None or issubclass(x, LocalVisBackend) for x in kinds):
        raise ValueError(
            f'{cfg.filename}: none of visualizer.vis_backends writes '
            "scalars.json, from which scores are read: add dict(type='"
            "LocalVisBackend')"
        )


def _seed_labels(
    cfg: Config, before: Config, kind: str, overrides: Mapping, seed: int
) -> None:
    """Let the seed choose the labels to learn from, unless overrides do.

    Where all images are labeled, or none, nothing is chosen.
    """
    # A seed that is still None afterwards is not overridden.
    for node in _learned_from(before, kind):
        node['seed'] = None
    apply_overrides(before, overrides)
    for node, tried in zip(
        _learned_from(cfg, kind), _learned_from(before, kind), strict=True
    ):
        chosen = node.get('label_ratio') not in (None, 0, 1)
        if chosen and tried.get('seed') is None:
            node['seed'] = seed


def _learned_from(cfg: Config, kind: str) -> Iterator[dict]:
    """``PartialLabels`` in the data that an evaluation learns from."""
    if PROTOCOLS[kind].trains:
        return partial_labels(cfg.get('train_dataloader'))
    return partial_labels((cfg.get('test_cfg') or {}).get('bank_dataloader'))


def _of_architecture(overrides: Mapping) -> dict:
    """Overrides of the backbone, but not of how it is trained."""
    start = 'model.backbone.'
    return {
        name: value
        for item in overrides.items()
        for name, value in _dotted(*item)
        if name.startswith(start)
        and name.split('.')[2] not in _TRAINING_OF_BACKBONE
    }


def _dotted(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Overrides of single fields of the backbone, out of whole parts."""
    if name in ('model', 'model.backbone') and isinstance(value, Mapping):
        if '_delete_' in value:
            raise ValueError(
                f'{name} is replaced as a whole (_delete_), which evaluations '
                'cannot follow: name its fields, such as model.backbone.depth'
            )
        for key, inner in value.items():
            yield from _dotted(f'{name}.{key}', inner)
    else:
        yield name, value


def tests_afterwards(cfg: Config) -> bool:
    """Whether a config that trains has no validation, so is tested after."""
    return cfg.get('val_cfg') is None or cfg.get('val_dataloader') is None


def train_command(cfg: Config, config: Path, folder: Path) -> list[str]:
    """Command that trains a config file, or resumes it."""
    return [
        *(_tool(cfg, 'train'), str(config)),
        *('--work-dir', str(folder), '--resume'),
    ]


def test_command(
    cfg: Config, config: Path, folder: Path, checkpoint: str
) -> list[str]:
    """Command that tests a checkpoint; mmengine writes the metrics."""
    return [
        *(_tool(cfg, 'test'), str(config), checkpoint),
        *('--work-dir', str(folder)),
    ]


def probe_command(
    settings: Mapping, config: Path, folder: Path, checkpoint: str
) -> list[str]:
    """Command of the linear probe on cached features."""
    options: list[str] = []
    for key in PROTOCOLS['cached_linear'].options:
        if key in settings:
            options += [f'--{key.replace("_", "-")}', str(settings[key])]
    return [
        str(tools_folder() / 'benchmarks/cached_linear_probe.py'),
        *(str(config), checkpoint),
        *('--out', str(folder / 'metrics.json'), *options),
    ]


def launcher(gpus: int, slurm_args: str | None) -> tuple[list[str], list[str]]:
    """What stands before and after a command.

    Args:
        gpus (int): Number of processes.
        slurm_args (str, optional): Options of srun; None to run here.

    Returns:
        tuple[list[str], list[str]]: Words before the script, and arguments of
        the script. Scripts without a ``--launcher`` run in one process.
    """
    if slurm_args is not None:
        command = ['srun', f'--ntasks={gpus}', f'--gres=gpu:{gpus}']
        command += ['--kill-on-bad-exit=1', *shlex.split(slurm_args)]
        after = ['--launcher', 'slurm'] if gpus > 1 else []
        return [*command, *SINGLE], after
    if gpus == 1:
        return [*SINGLE], []
    before = [sys.executable, '-m', 'torch.distributed.run', '--standalone']
    return [*before, f'--nproc_per_node={gpus}'], ['--launcher', 'pytorch']


def tools_folder() -> Path:
    """The tools that were installed with the package, or those beside it."""
    installed = PACKAGE / '.mim/tools'
    return installed if installed.is_dir() else PACKAGE.parent / 'tools'


def written_metrics(folder: Path) -> dict[str, float]:
    """Metrics of a test: those of a probe, or what mmengine's hook wrote."""
    files = sorted(folder.glob('[0-9]*/[0-9]*.json'))
    probe = folder / 'metrics.json'
    path = probe if probe.is_file() else files[-1] if files else None
    values: dict[str, Any] = json.loads(path.read_text()) if path else {}
    return {
        name: float(value)
        for name, value in values.items()
        if type(value) in (int, float) and name not in ('time', 'data_time')
    }


def _tool(cfg: Config, task: str) -> str:
    """``tools/train.py``, or that of mmdet or mmseg for their configs."""
    host = cfg.get('default_scope', 'mmpretrain')
    if host == 'mmpretrain':
        return str(tools_folder() / f'{task}.py')
    spec = find_spec(host)
    if spec is None:
        raise ValueError(
            f'{cfg.filename} needs {host}, which is not installed: run '
            'tools/install.sh without --no-transfer'
        )
    return str(Path(spec.origin).parent / f'.mim/tools/{task}.py')
