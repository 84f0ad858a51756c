"""Schedules counted in iterations, for another number of GPUs.

mmengine's ``auto_scale_lr`` changes only the learning rate. If a schedule
counts epochs, nothing else has to change; if it counts iterations, a smaller
batch would train on fewer images.
"""

import argparse
from collections.abc import Mapping, Sequence

from mmengine.config import Config, DictAction

# Marks a config whose schedule has been scaled already.
SCALED = 'auto_scale_lr.schedule'
# Counts of iterations in schedulers; detectron2 scales the warm-up as well.
_SCHEDULER_KEYS = ('begin', 'end', 'milestones', 'T_max', 'total_iters')


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
        for key in _SCHEDULER_KEYS:
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
