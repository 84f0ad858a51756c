"""Fit schedules to another number of GPUs, or to a longer run.

mmengine's ``auto_scale_lr`` changes only the learning rate. If a schedule
counts epochs, nothing else has to change; if it counts iterations, a smaller
batch would train on fewer images.
"""

import argparse
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

# Marks a config whose schedule has been scaled already.
SCALED = 'auto_scale_lr.schedule'
# Counts of iterations in schedulers; detectron2 scales the warm-up as well.
_POINTS = ('begin', 'end', 'milestones')
_DURATIONS = ('T_max', 'total_iters', 'total_steps', 'step_size', 'periods')


def scaled_options(cfg: Mapping, batch_size: int) -> dict:
    """The counts of iterations with which as many images are seen as intended.

    ``batch_size`` is that of all GPUs together. Returns values by dotted keys,
    as in ``--cfg-options``: none if the schedule counts epochs, is scaled
    already, is for this batch size, or does not say for which one it is.
    """
    scale_lr = cfg.get('auto_scale_lr') or {}
    base = scale_lr.get('base_batch_size')
    loop = cfg.get('train_cfg') or {}
    iterations = loop.get('max_iters')
    if not base or not iterations or scale_lr.get('schedule'):
        return {}
    if base == batch_size:
        return {}
    counts = {'train_cfg.max_iters': iterations}
    counts['train_cfg.val_interval'] = loop.get('val_interval', 1000)
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if not checkpoint.get('by_epoch', True):
        counts['default_hooks.checkpoint.interval'] = checkpoint['interval']
    for field, scheduler in schedulers(cfg).items():
        if scheduler.get('by_epoch', True):
            continue
        for key in (*_POINTS, *_DURATIONS):
            if scheduler.get(key):
                counts[f'{field}.{key}'] = scheduler[key]
    ratio = base / batch_size
    return {key: _scale(value, ratio) for key, value in counts.items()}


def as_text(options: Mapping) -> str:
    """Options (numbers and lists of them) as arguments of ``--cfg-options``.

    ``{'a.b': 1, 'c.0.d': [2, 3]}`` gives ``'a.b=1 c.0.d=2,3'``, without quotes
    for a shell.
    """
    return ' '.join(
        f'{key}={",".join(map(str, value))}'
        if isinstance(value, list)
        else f'{key}={value}'
        for key, value in options.items()
    )


def options_of_command(
    config: str, processes: int, arguments: Sequence[str]
) -> dict:
    """What ``--auto-scale-lr`` has to change besides the learning rate.

    ``arguments`` are those of ``train.py`` besides the config; what
    ``--cfg-options`` sets there takes precedence. Returns values by dotted
    keys, none without ``--auto-scale-lr``.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--auto-scale-lr', action='store_true')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, default={}
    )
    args, _ = parser.parse_known_args(arguments)
    if not args.auto_scale_lr:
        return {}
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(args.cfg_options)
    options = scaled_options(cfg, processes * cfg.train_dataloader.batch_size)
    options = {k: v for k, v in options.items() if k not in args.cfg_options}
    return {**options, SCALED: True} if options else {}


def schedulers(cfg: Mapping) -> dict[str, Mapping]:
    """Schedulers by their field in the config: one, or a list.

    Args:
        cfg (Mapping): The config.

    Returns:
        dict[str, Mapping]: Configs of schedulers.
    """
    found = cfg.get('param_scheduler') or []
    if isinstance(found, Mapping):
        return {'param_scheduler': found}
    return {f'param_scheduler.{i}': one for i, one in enumerate(found)}


def _scale(value, ratio: float):
    if isinstance(value, Sequence):
        return [_scale(item, ratio) for item in value]
    # -1 and infinity mean never.
    if value <= 0 or value == float('inf'):
        return value
    return max(1, round(value * ratio))


def extend_config(cfg: Config, length: int) -> Config:
    """Make a config train longer, with the schedule of the longer run.

    Warm-ups (from 0 to a point before the end) stay; the rest of the schedule
    is stretched to the new end. ``ExtendScheduleHook`` is added.

    Args:
        cfg (Config): A training config that resumes; changed in place.
        length (int): The new ``max_epochs``, or ``max_iters``.

    Returns:
        Config: The same config.

    Raises:
        ValueError: If the run does not resume, ``length`` is not longer, or a
            scheduler does not count what the training loop counts.
    """
    loop = cfg.train_cfg
    field = 'max_iters' if loop.get('max_iters') else 'max_epochs'
    if not cfg.get('resume'):
        raise ValueError(
            '--extend-to continues a run: give --resume with it. A new run '
            f'takes its length from train_cfg.{field}.'
        )
    old = loop[field]
    if length <= old:
        raise ValueError(
            f'{length} {field[4:]} are not longer than the run, whose '
            f'train_cfg.{field} is {old}. Leave the config as it was and '
            'give the new total.'
        )
    loop[field] = length
    stages = list(schedulers(cfg).values())
    by_epoch = field == 'max_epochs'
    if any(one.get('by_epoch', True) != by_epoch for one in stages):
        raise ValueError(
            f'--extend-to cannot stretch this schedule: train_cfg has {field}'
            f', so all of param_scheduler must have by_epoch={by_epoch}.'
        )
    warm_up = max(
        (
            one['end']
            for one in stages
            if not one.get('begin') and one.get('end', old) < old
        ),
        default=0,
    )
    for one in stages:
        if one.get('begin') or one.get('end', old) >= old:
            _stretch(one, warm_up, (length - warm_up) / (old - warm_up))
    cfg.custom_hooks = [
        *(cfg.get('custom_hooks') or []),
        dict(type='mmpretrain.ExtendScheduleHook'),
    ]
    return cfg


def _stretch(scheduler: dict, start: int, ratio: float) -> None:
    """Stretch what follows the point ``start`` of a scheduler, in place."""

    def moved(value: Any) -> Any:
        if isinstance(value, Sequence):
            return [moved(x) for x in value]
        later = start < value < float('inf')
        return round(start + (value - start) * ratio) if later else value

    for name in _DURATIONS:
        if scheduler.get(name):
            given = scheduler[name]
            several = isinstance(given, Sequence)  # one after the other
            given = given if several else [given]
            ends = accumulate(given, initial=scheduler.get('begin', 0))
            lengths = [b - a for a, b in pairwise(moved([*ends]))]
            scheduler[name] = lengths if several else lengths[0]
    for name in _POINTS:
        if scheduler.get(name):
            scheduler[name] = moved(scheduler[name])


@HOOKS.register_module()
class ExtendScheduleHook(Hook):
    """Put a resumed run on the schedule of its config.

    mmengine restores the schedulers of the checkpoint, so a changed schedule
    has no effect. This hook builds them anew and steps them up to the present
    position: from there on, learning rate and momentum are those of a run
    that had this schedule from its start. ``tools/train.py --extend-to`` adds
    it.

    Raises:
        ValueError: If there are several optimizers.
    """

    # After the state is restored, before anything is logged.
    priority = 'HIGH'

    def before_train(self, runner: Runner) -> None:
        """Replace the schedulers, and say what changes."""
        if not runner._resume or not runner.param_schedulers:
            return
        if not isinstance(runner.param_schedulers, list):
            raise ValueError(
                'ExtendScheduleHook supports one optimizer; this run has '
                f'{", ".join(runner.param_schedulers)}'
            )
        before = runner.optim_wrapper.get_lr()['lr'][0]
        start = time.monotonic()
        for group in runner.optim_wrapper.param_groups:
            for name in list(group):
                if name.startswith('initial_'):
                    group[name.removeprefix('initial_')] = group[name]
        runner.param_schedulers = runner.build_param_scheduler(
            runner.cfg.param_scheduler
        )
        _advance(runner)
        now = runner.optim_wrapper.get_lr()['lr'][0]
        loop = runner.train_loop
        print_log(
            f'The run is extended to {loop.max_epochs} epochs, '
            f'{loop.max_iters} iterations, and its schedule with it: the '
            f'learning rate after {runner.iter} iterations is {now:.4g} '
            f'(before: {before:.4g}). Schedulers were advanced in '
            f'{time.monotonic() - start:.1f} s.',
            logger='current',
            level=logging.WARNING,
        )


def _advance(runner: Runner) -> None:
    """Step new schedulers as ParamSchedulerHook did until now."""
    each_step = [s for s in runner.param_schedulers if not s.by_epoch]
    each_epoch = [s for s in runner.param_schedulers if s.by_epoch]
    with warnings.catch_warnings():
        # torch's reminder to step the optimizer first.
        warnings.simplefilter('ignore')
        # Interleaving matters only within a kind: each multiplies the value
        # by a factor of its own.
        for steppers, count in (
            (each_step, runner.iter),
            (each_epoch, runner.epoch),
        ):
            for _ in range(count):
                for scheduler in steppers:
                    scheduler.step()
