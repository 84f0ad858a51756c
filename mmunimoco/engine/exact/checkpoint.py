"""Checkpoints that are never partial, and from which a run resumes exactly."""

import logging
import os
import re
from collections.abc import Mapping
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import get_file_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub, print_log
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmunimoco.utils.atomic import remove_parts, write_atomic
from mmunimoco.utils.checkpoint import bare_model
from mmunimoco.utils.config_errors import closest
from mmunimoco.utils.safe_load import check_content

from .checkpoint_files import ATOMIC, LAST, find_readable
from .hook_state import HookStates
from .loops import ExactLoop
from .process_state import (
    collect_process_states,
    on_main_process,
    restore_process_state,
)

STATE = 'exact_resume'
# What the message hub, and so each checkpoint, knows about the files.
_IDS, _PATH, _EXTRA = 'keep_ckpt_ids', 'last_ckpt', 'extra_ckpts'


@HOOKS.register_module()
class ExactCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, safe from kills and exact on resume.

    Files are written beside their destination, flushed and renamed; then
    ``last_checkpoint`` names the new one, written the same way; only then
    surplus ones are removed. If a checkpoint cannot be written (disk full, no
    permission), that is logged as an error, training continues, and the
    previous checkpoint stays the last.

    In addition to mmengine's content, a checkpoint holds the position in the
    data and the random number generators of all processes, for
    ``ExactEpochLoop`` and ``ExactIterLoop``, and the state of hooks that have
    ``state_dict`` and ``load_state_dict``. Before the state is collected,
    the hooks' method ``before_collecting_state(runner)`` is called on all
    processes.

    ``--resume`` takes the newest checkpoint that can be read to its end. A
    file given explicitly is used or refused.

    Args:
        max_failed_saves (int): How many saves in a row may fail before the
            run stops. The one after the last step must not fail.
            Defaults to 3.
        **options: Arguments of mmengine's ``CheckpointHook``: ``interval``,
            ``by_epoch``, ``max_keep_ckpts``, ``save_best``, ``rule``...

    Raises:
        ValueError: If ``max_failed_saves`` is negative, or nothing takes an
            argument.
    """

    def __init__(self, max_failed_saves: int = 3, **options: Any) -> None:
        super().__init__(**options)
        # What it does not know it gives to save_checkpoint, at the first save.
        unknown = self.args.keys() - {'meta'}
        if unknown:
            known = signature(CheckpointHook.__init__).parameters
            raise ValueError(
                f'ExactCheckpointHook takes no argument {min(unknown)!r}'
                f'{closest(min(unknown), known.keys())}; change '
                'default_hooks.checkpoint'
            )
        if max_failed_saves < 0:
            raise ValueError(
                'ExactCheckpointHook.max_failed_saves must be 0 or more, got '
                f'{max_failed_saves}'
            )
        self.max_failed_saves = max_failed_saves
        self.saved_iter: int | None = None
        # Remote storage (s3://...) replaces objects as a whole by itself.
        self._is_local = (
            self.backend_args is None
            and self.file_client_args is None
            and '://' not in str(self.out_dir)
        )
        self._failed = 0
        self._damaged: list[str] = []
        self._state: dict | None = None
        self._loaded: Mapping | None = None
        self._resumed: str | None = None
        self._hooks: HookStates | None = None

    def before_run(self, runner: Runner) -> None:
        """Choose the checkpoint to resume from, or check the one given."""
        if not runner._resume:
            return
        if runner._load_from is not None:
            on_main_process(lambda: check_content(runner._load_from))
            self._resumed = str(runner._load_from)
            return
        if not self._is_local:
            return
        work_dir = Path(runner.work_dir)
        folder = work_dir
        if self.out_dir is not None:
            folder = Path(self.out_dir) / work_dir.name
        path = on_main_process(lambda: self._find(work_dir, folder))
        runner._load_from = None if path is None else str(path)
        self._resumed = runner._load_from

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the state that is restored once training begins."""
        if not runner._resume:
            return
        meta = checkpoint.get('meta') or {}
        if 'message_hub' not in checkpoint or 'iter' not in meta:
            raise ValueError(
                'the checkpoint to resume from holds only weights, or was not '
                'written by a run of mmengine: give it as load_from without '
                '--resume, or convert it (docs/checkpoints.md)'
            )
        self._loaded = checkpoint.get(STATE, {})

    def before_train(self, runner: Runner) -> None:
        """Prepare the folder, and restore the state of the run."""
        super().before_train(runner)
        self.last_ckpt = runner.message_hub.get_info(_PATH)
        if self._is_local:
            self.backend_args = dict(backend=ATOMIC)
            self.file_backend = get_file_backend(
                self.out_dir, backend_args=self.backend_args
            )
            if is_main_process():
                remove_parts(Path(self.out_dir))
                self._name_resumed(Path(runner.work_dir))
        self._expect_best_here(runner.message_hub)
        if self._damaged and self.max_keep_ckpts > 0:
            # No checkpoint lists them, so nothing else would remove them.
            extra = runner.message_hub.get_info(_EXTRA) or []
            runner.message_hub.update_info(_EXTRA, [*extra, *self._damaged])
        self._hooks = HookStates(runner.hooks)
        if self._loaded is not None:
            self._restore(runner, self._loaded)
            self._loaded = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add what mmengine does not save, leave out what is not read."""
        schedulers = checkpoint.get('param_schedulers') or []
        if isinstance(schedulers, Mapping):  # of several optimizers
            schedulers = chain.from_iterable(schedulers.values())
        for state in schedulers:
            # Built anew by a resumed run; safe loading refuses functions.
            for name in [x for x in state if callable(state[x])]:
                del state[name]
        if self._state is not None:
            checkpoint[STATE] = self._state

    def save_now(self, runner: Runner) -> str | None:
        """Save within an epoch, after a step; a collective call.

        Args:
            runner (Runner): The runner, in ``after_train_iter``.

        Returns:
            str | None: The file, or None if it could not be written.
        """
        step = runner.iter + 1
        if self.saved_iter == step:
            return self.last_ckpt
        meta = dict(epoch=runner.epoch, iter=step)
        if not self.by_epoch:
            self._save_checkpoint_with_step(runner, step, meta)
        else:
            self._save_whole(runner, f'iter_{step}.pth', meta, None)
        return self.last_ckpt if self.saved_iter == step else None

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict
    ) -> None:
        self._save_whole(runner, self.filename_tmpl.format(step), meta, step)

    def _save_whole(
        self, runner: Runner, name: str, meta: dict, step: int | None
    ) -> None:
        """Write a checkpoint, name it as the last, and remove surplus ones.

        ``step`` is None for a checkpoint outside the schedule, which the next
        scheduled one replaces.
        """
        hub = runner.message_hub
        keys = (_IDS, _PATH, _EXTRA)
        before = {key: hub.get_info(key) for key in keys}
        path = self.file_backend.join_path(self.out_dir, name)
        ids, extra = list(before[_IDS] or ()), list(before[_EXTRA] or ())
        surplus = []
        if step is None:
            extra.append(name)
        else:
            if self.max_keep_ckpts > 0:
                ids = [old for old in ids if old != step] + [step]
                old_ids = ids[: -self.max_keep_ckpts]
                ids = ids[-self.max_keep_ckpts :]
                surplus = [self.filename_tmpl.format(old) for old in old_ids]
            surplus += [old for old in extra if old != name]
            extra = []
        for key, value in zip(keys, (ids, path, extra), strict=True):
            hub.update_info(key, value)
        fault = self._write(runner, name, path, meta)
        if fault is not None:
            for key, value in before.items():
                hub.update_info(key, value)
            self._report(path, fault, meta['iter'] >= runner.max_iters)
            return
        self._failed = 0
        self.last_ckpt, self.saved_iter = path, meta['iter']
        if is_main_process():
            join = self.file_backend.join_path
            self._remove([join(self.out_dir, old) for old in surplus])

    def _write(
        self, runner: Runner, name: str, path: str, meta: dict
    ) -> str | None:
        """Write a checkpoint; returns why that failed, on every process."""
        # Not a hook point of mmengine, but of this project's hooks.
        runner.call_hook('before_collecting_state')
        self._state = self._collect(runner)

        def save() -> None:
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                backend_args=self.backend_args,
                **self.args,
            )
            write_atomic(Path(runner.work_dir) / LAST, str(path))

        try:
            on_main_process(save)
        except OSError as error:
            return str(error)
        finally:
            self._state = None
        return None

    def _report(self, path: str, fault: str, is_last: bool) -> None:
        self._failed += 1
        last = self.last_ckpt
        text = f'The checkpoint {path} could not be written: {fault}. '
        text += (
            f'The last one is still {last}.' if last else 'There is none yet.'
        )
        if is_last or self._failed > self.max_failed_saves:
            again = (
                'continue from there with --resume' if last else 'begin anew'
            )
            raise OSError(
                f'{text} Free some space, or repair the folder, and {again}'
            )
        print_log(
            f'{text} Training continues; it stops after '
            f'{self.max_failed_saves + 1 - self._failed} more failures.',
            logger='current',
            level=logging.ERROR,
        )

    def _remove(self, paths: list[str]) -> None:
        for path in paths:
            try:
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
            except OSError as error:
                _warn(f'The old checkpoint {path} was not removed: {error}')

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Save the best; mmengine would remove the previous one before."""
        if not self.save_best:
            return
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        step = runner.epoch if self.by_epoch else runner.iter
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        hub, replaced = runner.message_hub, []
        for key, rule in zip(self.key_indicators, self.rules, strict=True):
            worst = self.init_value_map[rule]
            best = hub.get_info(self._info('best_score', key), worst)
            score = metrics[key]
            if score is None or not self.is_better_than[key](score, best):
                continue
            previous = hub.get_info(self._info('best_ckpt', key))
            if self._write_best(runner, key, score, step, meta):
                replaced.append(previous)
        if replaced and self.last_ckpt is not None:
            # So a run that resumes from the last one knows the best.
            self._save_checkpoint_with_step(runner, step, meta)
        if is_main_process():
            isfile = self.file_backend.isfile
            found = [path for path in replaced if path and isfile(path)]
            self._remove(found)
            for path in found:
                runner.logger.info(
                    f'The previous best checkpoint {path} is removed'
                )

    def _write_best(
        self, runner: Runner, key: str, score: float, step: int, meta: dict
    ) -> bool:
        """Write the best by one metric; the previous one stays if it fails."""
        name = f'best_{key}_{self.filename_tmpl.format(step)}'
        name = name.replace('/', '_')
        path = self.file_backend.join_path(self.out_dir, name)
        hub = runner.message_hub
        known = [self._info(x, key) for x in ('best_score', 'best_ckpt')]
        before = {x: hub.get_info(x) for x in known if x in hub.runtime_info}
        # Before it is written, for the file holds both.
        hub.update_info_dict(dict(zip(known, (score, path), strict=True)))
        try:
            on_main_process(
                lambda: runner.save_checkpoint(
                    self.out_dir,
                    name,
                    self.file_client_args,
                    save_optimizer=False,
                    save_param_scheduler=False,
                    meta=meta,
                    by_epoch=False,
                    backend_args=self.backend_args,
                )
            )
        except OSError as error:
            for info in known:
                hub.pop_info(info)
            hub.update_info_dict(before)
            print_log(
                f'The best checkpoint {name} could not be written: {error}. '
                'The previous one is kept.',
                logger='current',
                level=logging.ERROR,
            )
            return False
        self._set_best(hub, key, path)
        runner.logger.info(
            f'The best checkpoint with {score:0.4f} {key} at {step} '
            f'{"epoch" if self.by_epoch else "iter"} is saved to {name}.'
        )
        return True

    def _expect_best_here(self, hub: MessageHub) -> None:
        """Replace the previous best in this folder, never in another one.

        A run that was resumed elsewhere, or whose folder was copied, knows
        that of the other run, which needs it.
        """
        for key in self.key_indicators if self.save_best else ():
            path = hub.get_info(self._info('best_ckpt', key))
            if path is not None:
                name = Path(path).name
                path = self.file_backend.join_path(self.out_dir, name)
                is_here = self.file_backend.isfile(path)
                self._set_best(hub, key, path if is_here else None)

    def _set_best(self, hub: MessageHub, key: str, path: str | None) -> None:
        """Say where the best by a metric is, to mmengine too."""
        hub.update_info(self._info('best_ckpt', key), path)
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = path
        else:
            self.best_ckpt_path_dict[key] = path

    def _info(self, name: str, key: str) -> str:
        """Name in mmengine's message hub for what is best by a metric."""
        return name if len(self.key_indicators) == 1 else f'{name}_{key}'

    def _collect(self, runner: Runner) -> dict | None:
        """State of the loop and of all processes; a collective call."""
        loop = runner.train_loop
        if not isinstance(loop, ExactLoop):
            return None
        if not runner.optim_wrapper.should_update():
            _warn(
                'This checkpoint falls between two steps of the optimizer: '
                'gradients accumulated so far are not in it, so a run resumed '
                'from it will differ. Save at multiples of '
                'accumulative_counts.'
            )
        model = bare_model(runner.model)
        ranks = collect_process_states(model, loop.random_state)
        hooks = self._hooks.collect()
        return dict(loop=loop.state_dict(), ranks=ranks, hooks=hooks)

    def _restore(self, runner: Runner, state: Mapping) -> None:
        loop = runner.train_loop
        if not isinstance(loop, ExactLoop):
            _warn(
                f'{type(loop).__name__} does not resume exactly: data and '
                "random numbers start anew. train_cfg.type='ExactEpochLoop' "
                "or 'ExactIterLoop' does."
            )
        elif not state:
            loop.start_without_state()
            _warn(
                'The checkpoint holds no random numbers (it was not written '
                'by ExactCheckpointHook with an exact loop): they start anew, '
                'so the run will differ from an uninterrupted one.'
            )
        else:
            random_state = restore_process_state(
                bare_model(runner.model),
                state['ranks'],
                state['loop']['seed'],
                runner.iter,
            )
            loop.load_state_dict(state['loop'], random_state)
            self._hooks.restore(state.get('hooks', {}))
            self.saved_iter = runner.iter

    def _find(self, work_dir: Path, folder: Path) -> Path | None:
        """The checkpoint to resume; damaged ones are remembered."""
        path, damaged = find_readable(work_dir, folder, self._is_own)
        self._damaged = [
            each.name
            for each in damaged
            if each.parent == folder and self._is_own(each.name)
        ]
        return path

    def _name_resumed(self, work_dir: Path) -> None:
        """Name the checkpoint that was resumed as the last one.

        For a restart that comes before the next save, if it was given, and
        for readers of a folder that was moved or copied.
        """
        if self._resumed is None or not Path(self._resumed).is_file():
            return
        path, last = Path(self._resumed).absolute(), work_dir / LAST
        named = last.read_bytes().strip() if last.is_file() else b''
        if Path(os.fsdecode(named)).absolute() != path:
            write_atomic(last, str(path))

    def _is_own(self, name: str) -> bool:
        """Whether a file name is that of a checkpoint of this hook."""
        pattern = re.sub(
            r'\\\{.*?\\\}', r'\\d+', re.escape(self.filename_tmpl)
        )
        return bool(re.fullmatch(rf'{pattern}|iter_\d+\.pth', name))


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)
