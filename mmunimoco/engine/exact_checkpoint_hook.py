"""Checkpoints that are whole, and from which a run goes on exactly."""

import logging
import re
from collections import deque
from collections.abc import Mapping
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
from mmunimoco.utils.safe_load import check_content

from .exact_loops import ExactLoop
from .file_backend import ATOMIC, DeferredRemovals
from .latest_checkpoint import LAST, find_readable
from .rank_states import collect_rank_states, restore_rank_state

STATE = 'exact_resume'
# What the message hub, and so each checkpoint, knows of the files.
_IDS, _PATH, _EXTRA = 'keep_ckpt_ids', 'last_ckpt', 'extra_ckpts'


@HOOKS.register_module()
class ExactCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, safe from kills and exact on resume.

    Files are written beside their place, flushed and renamed; then
    ``last_checkpoint``, in the same way, names the new one; only then those
    that are too many are removed. What could not be written (disk full, no
    permission) is an error in the log, the run goes on, and the one before
    stays the last.

    Beside what mmengine saves, a checkpoint holds the position in the data
    and the random number generators of all processes, for
    ``ExactEpochLoop`` and ``ExactIterLoop``.

    ``--resume`` takes the newest checkpoint that can be read to its end. A
    file given to it is taken or refused.

    Args:
        max_failed_saves (int): How many times in a row a checkpoint may fail
            to be written before the run stops. The one after the last step
            may not. Defaults to 3.
        **options: Of mmengine's ``CheckpointHook``: ``interval``,
            ``by_epoch``, ``max_keep_ckpts``, ``save_best``, ``rule``...

    Raises:
        ValueError: If ``max_failed_saves`` is negative.
    """

    def __init__(self, max_failed_saves: int = 3, **options: Any) -> None:
        super().__init__(**options)
        if max_failed_saves < 0:
            raise ValueError(
                'ExactCheckpointHook.max_failed_saves must be 0 or more, got '
                f'{max_failed_saves}'
            )
        self.max_failed_saves = max_failed_saves
        self.saved_iter: int | None = None
        # Elsewhere (s3://...) an upload is whole by itself.
        self._is_local = (
            self.backend_args is None
            and self.file_client_args is None
            and '://' not in str(self.out_dir)
        )
        self._failed = 0
        self._damaged: list[str] = []
        self._state: dict | None = None
        self._loaded: Mapping | None = None

    def before_run(self, runner: Runner) -> None:
        """Choose what to resume from, or look at what is given."""
        if not runner._resume:
            return
        if runner._load_from is not None:
            _agreed(lambda: _checked(runner._load_from))
            return
        if not self._is_local:
            return
        work_dir = Path(runner.work_dir)
        folder = work_dir
        if self.out_dir is not None:
            folder = Path(self.out_dir) / work_dir.name
        runner._load_from = _agreed(lambda: self._find(work_dir, folder))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take what is to be restored once training begins."""
        if not runner._resume:
            return
        meta = checkpoint.get('meta') or {}
        if 'message_hub' not in checkpoint or 'iter' not in meta:
            raise ValueError(
                'the checkpoint to resume from holds weights alone, or is of '
                'no run of mmengine: give it as load_from without --resume, '
                'or convert it (docs/checkpoints.md)'
            )
        self._loaded = checkpoint.get(STATE, {})

    def before_train(self, runner: Runner) -> None:
        """Prepare the folder; put the run back where it was."""
        super().before_train(runner)
        self.last_ckpt = runner.message_hub.get_info(_PATH)
        if self._is_local:
            self.backend_args = dict(backend=ATOMIC)
            self.file_backend = get_file_backend(
                self.out_dir, backend_args=self.backend_args
            )
            if is_main_process():
                remove_parts(Path(self.out_dir))
        if self._damaged and self.max_keep_ckpts > 0:
            # No checkpoint knows of them: they would stay for good.
            extra = runner.message_hub.get_info(_EXTRA) or []
            runner.message_hub.update_info(_EXTRA, [*extra, *self._damaged])
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
        """Write, name as the last, and remove; ``step`` None: an extra."""
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
            self._report(runner, path, fault)
            return
        self._failed = 0
        self.last_ckpt, self.saved_iter = path, meta['iter']
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = deque(ids, self.max_keep_ckpts)
        if is_main_process():
            self._remove(surplus)

    def _write(
        self, runner: Runner, name: str, path: str, meta: dict
    ) -> str | None:
        """Write a checkpoint; why that failed, on every process."""
        # A method that hooks of this project may have.
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

    def _report(self, runner: Runner, path: str, fault: str) -> None:
        self._failed += 1
        text = (
            f'The checkpoint {path} could not be written: {fault}. '
            f'The last one is still {self.last_ckpt}.'
        )
        is_last = runner.iter + 1 >= runner.max_iters
        if is_last or self._failed > self.max_failed_saves:
            raise OSError(
                f'{text} Make room, or mend the folder, and go on from there '
                'with --resume'
            )
        print_log(
            f'{text} Training goes on; it stops after '
            f'{self.max_failed_saves + 1 - self._failed} more of these.',
            logger='current',
            level=logging.ERROR,
        )

    def _remove(self, names: list[str]) -> None:
        for name in names:
            path = self.file_backend.join_path(self.out_dir, name)
            try:
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
            except OSError as error:
                print_log(
                    f'The old checkpoint {path} stays: {error}',
                    logger='current',
                    level=logging.WARNING,
                )

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Save the best; the one before goes when the new one is there."""
        backend = self.file_backend
        self.file_backend = DeferredRemovals(backend)
        saver = _BestSaver(runner, self.file_backend)
        try:
            super()._save_best_checkpoint(saver, metrics)
            saver.backend.flush()
        finally:
            self.file_backend = backend

    def _collect(self, runner: Runner) -> dict | None:
        """State of the loop and of all processes; a collective call."""
        loop = runner.train_loop
        if not isinstance(loop, ExactLoop):
            return None
        if not runner.optim_wrapper.should_update():
            print_log(
                'This checkpoint falls between two steps of the optimizer: '
                'gradients accumulated so far are not in it, so what is '
                'resumed from it will differ. Save at multiples of '
                'accumulative_counts.',
                logger='current',
                level=logging.WARNING,
            )
        model = bare_model(runner.model)
        ranks = collect_rank_states(model, loop.random_state)
        return dict(loop=loop.state_dict(), ranks=ranks)

    def _restore(self, runner: Runner, state: Mapping) -> None:
        loop = runner.train_loop
        if not isinstance(loop, ExactLoop):
            print_log(
                f'{type(loop).__name__} does not resume exactly: data and '
                "random numbers start anew. train_cfg.type='ExactEpochLoop' "
                "or 'ExactIterLoop' does.",
                logger='current',
                level=logging.WARNING,
            )
        elif not state:
            loop.start_without_state()
            print_log(
                'The checkpoint holds no random numbers (it is not of '
                'ExactCheckpointHook with an exact loop): they start anew, '
                'so the run will differ from one that was not stopped.',
                logger='current',
                level=logging.WARNING,
            )
        else:
            random_state = restore_rank_state(
                bare_model(runner.model),
                state['ranks'],
                state['loop']['seed'],
                runner.iter,
            )
            loop.load_state_dict(state['loop'], random_state)
            self.saved_iter = runner.iter

    def _find(self, work_dir: Path, folder: Path) -> Path | None:
        """The checkpoint to resume; those that are damaged are remembered."""
        path, damaged = find_readable(work_dir, folder, self._is_own)
        self._damaged = [
            each.name
            for each in damaged
            if each.parent == folder and self._is_own(each.name)
        ]
        return path

    def _is_own(self, name: str) -> bool:
        """Whether a file name is that of a checkpoint of this hook."""
        pattern = re.sub(
            r'\\\{.*?\\\}', r'\\d+', re.escape(self.filename_tmpl)
        )
        return bool(re.fullmatch(rf'{pattern}|iter_\d+\.pth', name))


class _BestSaver:
    """A runner that survives when the best checkpoint cannot be written.

    Args:
        runner (Runner): The runner, of which all else is asked.
        backend (DeferredRemovals): Where the best one so far was removed.
    """

    def __init__(self, runner: Runner, backend: DeferredRemovals) -> None:
        self.runner = runner
        self.backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)

    def save_checkpoint(self, *args: Any, **options: Any) -> None:
        """Save; without success keep the one before."""
        try:
            self.runner.save_checkpoint(*args, **options)
        except OSError as error:
            self.backend.forget()
            print_log(
                f'The best checkpoint could not be written: {error}. The one '
                'before stays.',
                logger='current',
                level=logging.ERROR,
            )


def _checked(path: str) -> None:
    """Refuse a local file that is damaged; others only when they are read."""
    if Path(path).is_file():
        check_content(path)


def _agreed(find: Any) -> str | None:
    """What the main process finds, or its error, on every process."""
    answer = [None, None]
    if is_main_process():
        try:
            path = find()
            answer[0] = None if path is None else str(path)
        except ValueError as error:
            answer[1] = str(error)
    broadcast_object_list(answer)
    if answer[1] is not None:
        raise ValueError(answer[1])
    return answer[0]
