"""Compare the config of a resumed run with the one in its checkpoint."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.runner import Runner

from mmunimoco.utils.config_text import config_literal

from ..schedules import ExtendScheduleHook

# Where a change may alter what is learned.
_FIELDS = (
    *('model', 'data_preprocessor', 'train_dataloader', 'train_cfg'),
    *('optim_wrapper', 'param_scheduler', 'auto_scale_lr', 'custom_hooks'),
)
# What only says where things are, or how fast they are done.
_HARMLESS = {
    *('data_root', 'backend_args', 'checkpoint', 'num_workers'),
    *('prefetch_factor', 'pin_memory', 'persistent_workers'),
    *('val_interval', 'val_begin', 'dynamic_intervals', 'enable'),
    *('fused', 'foreach', 'compile', 'images_on_device'),
}
# mmengine restores these from the checkpoint, whatever the config says.
_RESTORED = (
    'optim_wrapper.optimizer.',
    'optim_wrapper.paramwise_cfg',
    'param_scheduler',
)
# Lengths of a run, and what the checkpoint counts.
_LENGTHS = {'train_cfg.max_epochs': 'epoch', 'train_cfg.max_iters': 'iter'}
_ABSENT = 'not set'
# mmpretrain's own tools, which run the configs too, do not have the option.
_EXTEND = 'give tools/train.py of mmunimoco --resume --extend-to '


def check_resumed_config(runner: Runner, meta: Mapping) -> None:
    """Compare the config of a resumed run with that of its checkpoint.

    Args:
        runner (Runner): The runner, before it has resumed.
        meta (Mapping): ``meta`` of the checkpoint.

    Raises:
        ValueError: If a change would have no effect, leave the learning rate
            at the end of its schedule, or end an extended run where it is.
    """
    if not isinstance(meta.get('cfg'), str):
        return  # not written by mmengine; others report that
    changes = changed_fields(meta['cfg'], runner.cfg.pretty_text)
    extends = any(isinstance(x, ExtendScheduleHook) for x in runner.hooks)
    if not extends:
        _check_length(changes, meta)
    useless = without_effect(changes)
    if extends:
        useless = [x for x in useless if not x.startswith('param_scheduler')]
    if useless:
        raise ValueError(
            'the config has changed since the checkpoint to resume from, but '
            'optimizer and schedule are restored from there, so this would '
            f'have no effect:{_describe({x: changes[x] for x in useless})}\n'
            'Resume with the old values, or start a new run from the weights '
            '(load_from without --resume, another --work-dir). To train '
            f'longer, leave the config as it was and {_EXTEND}N.'
        )
    if changes:
        runner.logger.warning(
            'The config has changed since the checkpoint; from here on:'
            + _describe(changes)
        )
    loop = runner.train_loop
    total = (runner.cfg.get('train_cfg') or {}).get('max_epochs')
    # Iterations of another batch size would not compare.
    unit, end = ('epoch', total) if total else ('iter', loop.max_iters)
    if meta.get(unit, 0) >= end:
        length = f'{total} epochs' if total else f'{loop.max_iters} iterations'
        runner.logger.warning(
            f'This run is finished: the checkpoint is at the end of its '
            f'{length}, nothing is trained. To train longer, {_EXTEND}N; for '
            'mmunimoco pretrain, --resume --epochs N.'
        )


def _check_length(changes: Mapping[str, tuple], meta: Mapping) -> None:
    """Refuse a longer run, and to take an extended one for finished."""
    for field, unit in _LENGTHS.items():
        old, new = changes.get(field, (None, None))
        if not isinstance(old, int) or not isinstance(new, int):
            continue
        if new > old:
            raise ValueError(
                f'{field} is {new}, but the run to resume was meant for {old},'
                ' and its schedule ends there. To train longer, leave the '
                f'config as it was and {_EXTEND}{new}, which stretches the '
                'schedule.'
            )
        done = meta.get(unit, 0)
        if new <= done < old:
            raise ValueError(
                f'{field} is {new}, but the run to resume is meant for {old} '
                f'and has done {done}. If it was extended, {_EXTEND}{old} '
                f'again; for mmunimoco pretrain, --resume --epochs {old}.'
            )


def changed_fields(before: str, now: str) -> dict[str, tuple[Any, Any]]:
    """List the settings that may change what a run learns.

    Paths, workers, intervals of validation and the like are left out. So are
    fields that hold anything but literals.

    Args:
        before (str): Text of the config in the checkpoint (``meta['cfg']``).
        now (str): Text of the config of this run.

    Returns:
        dict[str, tuple[Any, Any]]: Old and new value by dotted field;
        ``'not set'`` if there is none.
    """
    changes = {}
    for field in _FIELDS:
        old, new = (
            dict(_flatten(field, config_literal(text, field)))
            for text in (before, now)
        )
        for name in dict.fromkeys([*old, *new]):
            pair = old.get(name, _ABSENT), new.get(name, _ABSENT)
            if pair[0] != pair[1]:
                changes[name] = pair
    return changes


def without_effect(changes: Mapping[str, Any]) -> list[str]:
    """Those changed fields whose values come from the checkpoint anyway."""
    return [name for name in changes if name.startswith(_RESTORED)]


def _describe(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """One line for each change, such as ``a.b: 1 -> 2``."""
    return ''.join(
        f'\n    {name}: {old!r} -> {new!r}'
        for name, (old, new) in changes.items()
    )


def _flatten(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the values in nested dictionaries and lists by dotted names."""
    if name.rpartition('.')[2] in _HARMLESS:
        return
    if name == 'custom_hooks' and isinstance(value, list):
        # By type, since their order and number may differ.
        value = {
            str(hook.get('type')).rpartition('.')[2]: hook
            for hook in value
            if isinstance(hook, Mapping)
        }
        # Checks, and what this comparison is about.
        for own in ('PreflightHook', 'ExtendScheduleHook'):
            value.pop(own, None)
    if isinstance(value, list) and any(isinstance(x, Mapping) for x in value):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flatten(f'{name}.{key}', item)
    elif value is not None:
        # Lists and tuples mean the same in configs.
        yield name, list(value) if isinstance(value, tuple) else value
