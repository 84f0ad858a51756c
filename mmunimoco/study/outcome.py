"""What a job runs, and what it has given."""

import os
from copy import deepcopy
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmunimoco.utils.atomic import write_whole

from .configs import label_ratio
from .plan import Job, last_checkpoint
from .protocols import (
    CHECKPOINT,
    PRETRAIN,
    launcher,
    probe_command,
    test_command,
    tests_afterwards,
    train_command,
    written_metrics,
)
from .records import hardware_of, read_curves, read_loss, summarise

# In a command: the last checkpoint of the job itself, once it has trained.
OWN_CHECKPOINT = '<own checkpoint>'


def write_commands(
    job: Job, gpus: int, slurm_args: str | None
) -> list[list[str]]:
    """Write a job's config; the commands to run one after another.

    Raises:
        ValueError: If a package that the job needs is not installed.
    """
    config, folder, cfg = job.config_file, job.folder, job.cfg
    weights = None if job.evaluation == PRETRAIN else job.checkpoint()
    if weights is not None and job.trains:
        cfg = deepcopy(cfg)
        cfg.merge_from_dict({CHECKPOINT: weights})
    _write_config(config, cfg)
    before, after = launcher(gpus, slurm_args)
    if is_probe(job):
        commands = [probe_command(job.settings, config, folder, weights)]
    elif job.trains:
        commands = [train_command(cfg, config, folder)]
        if job.evaluation != PRETRAIN and tests_afterwards(cfg):
            commands.append(test_command(cfg, config, folder, OWN_CHECKPOINT))
    else:
        commands = [test_command(cfg, config, folder, weights)]
    return [[*before, *command, *after] for command in commands]


def is_probe(job: Job) -> bool:
    """Whether it runs in one process, whatever the study says."""
    return job.settings['type'] == 'cached_linear'


def read_result(job: Job) -> dict[str, Any]:
    """Metrics and curves of a job that has ended without an error.

    Raises:
        ValueError: If a metric to report, or the checkpoint to evaluate, is
            missing.
    """
    curves = read_curves(job.folder) if job.trains else {}
    lower = bool(job.settings.get('lower_is_better'))
    metrics = {name: summarise(c, lower) for name, c in curves.items()}
    found = dict(metrics=metrics, curves=curves)
    if job.evaluation == PRETRAIN:
        if last_checkpoint(job.folder) is None:
            raise ValueError(
                f'{job.folder} has no checkpoint: let default_hooks.'
                'checkpoint save one at the end'
            )
        return found | dict(loss=read_loss(job.folder))
    for name, value in written_metrics(job.folder).items():
        metrics.setdefault(name, dict(last=value, best=value))
    missing = set(job.settings['metrics']) - set(metrics)
    if missing:
        raise ValueError(
            f'{job.evaluation} gives no metric {", ".join(sorted(missing))}; '
            f'there are {", ".join(sorted(metrics)) or "none"}'
        )
    return found


def record_of(
    job: Job,
    gpus: int,
    work_dir: Path,
    environment: dict[str, Any],
    **found: Any,
) -> dict[str, Any]:
    """The record of a job.

    Args:
        job (Job): The job.
        gpus (int): Processes that it ran in.
        work_dir (Path): Paths are relative to it.
        environment (dict): ``versions``, ``machine`` and ``git``.
        **found: ``status``, ``seconds``, ``metrics`` and the like.
    """
    console = job.folder / 'console.log'
    paths = dict(
        folder=job.folder,
        config=job.config_file,
        log=max(job.folder.glob('*/*.log'), default=console),
    )
    protocol = dict(job.settings)
    if 'config' in protocol:
        protocol['config'] = os.path.relpath(protocol['config'], work_dir)
    by_epoch = 'max_epochs' in (job.cfg.get('train_cfg') or {})
    return dict(
        key=job.key,
        config_hash=job.config_hash,
        code=job.code,
        variant=job.variant.name,
        group=job.variant.group,
        series=job.variant.series,
        grid=job.variant.grid,
        overrides=job.variant.overrides,
        label_ratio=_label_ratio(job),
        seed=job.seed,
        evaluation=job.evaluation,
        protocol=protocol,
        unit='epoch' if by_epoch else 'iteration',
        steps=job.steps(gpus),
        gpus=gpus,
        ended=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        versions=environment['versions'],
        machine=hardware_of(job.folder, environment['machine']),
        git=environment['git'],
        **{k: os.path.relpath(v, work_dir) for k, v in paths.items()},
        **found,
    )


def _write_config(path: Path, cfg: Config) -> None:
    # mmengine wants the suffix; the unfinished file has another.
    def write(part: Path) -> None:
        text = part.with_suffix('.py')
        # Without formatting, which takes long and which the run repeats.
        Config(cfg.to_dict(), format_python_code=False).dump(str(text))
        text.replace(part)

    write_whole(path, write)


def _label_ratio(job: Job) -> float | None:
    """Share of labels of the pre-training that a job evaluates."""
    if job.needs is None and job.evaluation != PRETRAIN:
        return None
    return label_ratio((job.needs or job).cfg)
