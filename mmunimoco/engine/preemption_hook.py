"""Save and leave when the cluster asks for it."""

import logging
import os
import signal
import threading
from types import FrameType

import torch
import torch.distributed as dist
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmunimoco.models.collectives import new_gloo_group

from .exact_checkpoint_hook import ExactCheckpointHook

# EX_TEMPFAIL of sysexits.h: a failure that passes, worth another try.
REQUEUE = 75


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Save at the next step on SIGTERM, and exit with a status to requeue on.

    Slurm sends SIGTERM before it preempts a job or its time is over, clouds
    do before they take a machine back. The step is brought to its end, a
    checkpoint is written, and the process exits with ``exit_code``;
    ``--resume`` goes on there. With several processes it is enough that one
    gets the signal: they agree, and save one step later.

    In a validation nothing has to be saved, if that was done before it; the
    process exits at once, and validates again when resumed.

    Without ``ExactCheckpointHook`` nothing can be saved: a warning, and
    SIGTERM ends the run as ever. A program that handles SIGTERM itself is left
    alone.

    Args:
        exit_code (int): Exit status, 1 to 255. Defaults to 75.

    Raises:
        ValueError: If the status is out of range.
    """

    # After all others: what they do for a step is done, and saved.
    priority = 'LOWEST'

    def __init__(self, exit_code: int = REQUEUE) -> None:
        if not 0 < exit_code < 256:
            raise ValueError(
                'PreemptionHook.exit_code must be between 1 and 255, got '
                f'{exit_code}'
            )
        self.exit_code = exit_code
        self._requested = False
        self._leave_at_once = False
        self._installed = False
        self._checkpoints: ExactCheckpointHook | None = None
        self._group = None
        self._question = None
        self._answer = False

    def before_train(self, runner: Runner) -> None:
        """Begin to listen."""
        self._checkpoints = _find_checkpoint_hook(runner)
        if self._checkpoints is None:
            print_log(
                'No ExactCheckpointHook in default_hooks.checkpoint, so '
                'nothing is saved on SIGTERM.',
                logger='current',
                level=logging.WARNING,
            )
            return
        if get_world_size() > 1 and self._group is None:
            # On the CPU, so that nothing ever waits for a GPU.
            self._group = new_gloo_group()
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and _is_free(signal.getsignal(signal.SIGTERM)):
            signal.signal(signal.SIGTERM, self._handle)
            self._installed = True

    def after_train_iter(self, runner: Runner, *_, **__) -> None:
        """Save and leave, if asked to.

        Raises:
            SystemExit: With the exit status.
        """
        if self._all_know() and runner.optim_wrapper.should_update():
            path = self._checkpoints.save_now(runner)
            self._leave(path or 'nothing, see above')

    def before_val(self, runner: Runner) -> None:
        """From now on nothing has to be saved, if that was just done."""
        if not self._installed:
            return
        saved = self._checkpoints.saved_iter
        self._leave_at_once = saved == runner.iter
        if self._leave_at_once and self._requested:
            self._leave('what was saved before this validation')

    def after_val(self, runner: Runner) -> None:
        """Training follows."""
        self._leave_at_once = False

    def after_train(self, runner: Runner) -> None:
        """Listen no more."""
        if self._installed:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._installed = False

    def _all_know(self) -> bool:
        """Whether every process knows by now that it is to stop.

        One step's question is answered at the next, so nobody waits for it.
        """
        if self._group is None:
            return self._requested
        if self._question is not None:
            work, flag = self._question
            work.wait()
            self._answer |= bool(flag)
        flag = torch.tensor(int(self._requested))
        work = dist.all_reduce(
            flag, dist.ReduceOp.MAX, self._group, async_op=True
        )
        self._question = work, flag
        return self._answer

    def _leave(self, saved: str) -> None:
        print_log(
            f'SIGTERM: saved is {saved}; leaving with exit status '
            f'{self.exit_code}, --resume goes on from there.',
            logger='current',
            level=logging.WARNING,
        )
        raise SystemExit(self.exit_code)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._leave_at_once:
            raise SystemExit(self.exit_code)
        self._requested = True


def _find_checkpoint_hook(runner: Runner) -> ExactCheckpointHook | None:
    hooks = (h for h in runner.hooks if isinstance(h, ExactCheckpointHook))
    return next(hooks, None)


def _is_free(handler: object) -> bool:
    """Whether nobody handles a signal, or a hook of a run that failed."""
    return handler == signal.SIG_DFL or _is_ours(handler)


def _is_ours(handler: object) -> bool:
    return isinstance(getattr(handler, '__self__', None), PreemptionHook)


class _Forks:
    """Forked processes, such as a metric's pool, end on SIGTERM as ever.

    Who made them would wait without end for those that outlive it. The signal
    is blocked until they have the default again: Python forgets one that
    comes before.
    """

    mask = None

    @classmethod
    def before(cls) -> None:
        if _is_ours(signal.getsignal(signal.SIGTERM)):
            cls.mask = signal.pthread_sigmask(
                signal.SIG_BLOCK, {signal.SIGTERM}
            )

    @classmethod
    def in_parent(cls) -> None:
        if cls.mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, cls.mask)
            cls.mask = None

    @classmethod
    def in_child(cls) -> None:
        if cls.mask is not None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        cls.in_parent()


os.register_at_fork(
    before=_Forks.before,
    after_in_parent=_Forks.in_parent,
    after_in_child=_Forks.in_child,
)
