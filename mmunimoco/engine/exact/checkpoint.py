"""Checkpoints that are never partial, and from which a run resumes exactly."""

import logging
import os
import re
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import get_file_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
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
            on_main_process(lambda: _check_file(runner._load_from))
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
        if self._damaged and self.max_keep_ckpts > 0:
            # No checkpoint lists them, so nothing else would remove them.
            extra = runner.message_hub.get_info(_EXTRA) or []
            runner.message_hub.update_info(_EXTRA, [*extra, *self._damaged])
        self._hooks = HookStates(runner.hooks)
        if self._loaded is not None:
            self._restore(runner, self._loaded)
            self._loaded = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add what mmengine does not save."""
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
        runner = getattr(runner, 'runner', runner)  # of _BestSaver
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
        fault = None
        if is_main_process():
            try:
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
            except OSError as error:
                fault = str(error)
        self._state = None
        faults = [fault]
        broadcast_object_list(faults)
        return faults[0]

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
        if self.save_best:
            self._expect_best_here()
        saver = _BestSaver(self, runner)
        self.file_backend.remove = saver.surplus.append
        try:
            super()._save_best_checkpoint(saver, metrics)
        finally:
            del self.file_backend.remove  # the method is in place again
        self._remove(saver.surplus)
        for text in saver.texts:
            runner.logger.info(text)

    def _expect_best_here(self) -> None:
        """Replace the previous best in this folder, never in another one.

        A run that was resumed elsewhere, or whose folder was copied, knows
        that of the other run, which needs it.
        """

        def here(path: str | None) -> str | None:
            join = self.file_backend.join_path
            return path and join(self.out_dir, Path(path).name)

        if len(self.key_indicators) == 1:
            self.best_ckpt_path = here(self.best_ckpt_path)
        else:
            paths = self.best_ckpt_path_dict
            paths.update({key: here(path) for key, path in paths.items()})

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


class _BestSaver:
    """A runner that continues if the best checkpoint cannot be written.

    Then score and checkpoint from before are still the best.

    Args:
        hook (ExactCheckpointHook): Whose best checkpoint is saved.
        runner (Runner): The runner, which does everything else.

    Attributes:
        surplus (list[str]): The previous best checkpoints, if mmengine wants
            them removed.
        texts (list[str]): What mmengine logs on what has been saved.
    """

    def __init__(self, hook: ExactCheckpointHook, runner: Runner) -> None:
        self.hook = hook
        self.runner = runner
        self.surplus: list[str] = []
        self.texts: list[str] = []
        self._failed: str | None = None
        self._before = {
            name: value
            for name, value in runner.message_hub.runtime_info.items()
            if name.startswith(('best_score', 'best_ckpt'))
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)

    @property
    def logger(self) -> '_BestSaver':
        """Collects texts, as it is not known yet whether they are true."""
        return self

    def info(self, text: str) -> None:
        """Take a line of mmengine's."""
        if self._failed is None or self._failed not in text:
            self.texts.append(text)

    def save_checkpoint(
        self, out_dir: str, filename: str, **options: Any
    ) -> None:
        """Save; if that fails, keep the previous best checkpoint."""
        faults = [None]
        try:  # does nothing in other processes than the main one
            self.runner.save_checkpoint(out_dir, filename, **options)
        except OSError as error:
            faults = [str(error)]
        broadcast_object_list(faults)
        if faults[0] is None:
            return
        self._failed = filename
        self._undo(filename)
        print_log(
            f'The best checkpoint {filename} could not be written: '
            f'{faults[0]}. The previous one is kept.',
            logger='current',
            level=logging.ERROR,
        )

    def _undo(self, filename: str) -> None:
        """Forget a best checkpoint that is not there."""
        hub, keys = self.runner.message_hub, self.hook.key_indicators
        several = len(keys) > 1
        for key in keys:
            suffix = f'_{key}' if several else ''
            path = hub.get_info(f'best_ckpt{suffix}')
            if path is None or Path(path).name != filename:
                continue
            for name in (f'best_score{suffix}', f'best_ckpt{suffix}'):
                hub.pop_info(name)
                if name in self._before:
                    hub.update_info(name, self._before[name])
            old = hub.get_info(f'best_ckpt{suffix}')
            if several:
                self.hook.best_ckpt_path_dict[key] = old
            else:
                self.hook.best_ckpt_path = old
            # By name: it may be of the folder before a copy.
            kept = Path(str(old)).name
            self.surplus[:] = [
                path for path in self.surplus if Path(path).name != kept
            ]
            self.texts = [text for text in self.texts if kept not in text]


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)


def _check_file(path: str) -> None:
    """Refuse a damaged local file; others are checked when they are read."""
    if Path(path).is_file():
        check_content(path)
