"""Save and exit when the cluster sends SIGTERM."""

import logging
import os
import signal
import threading
from functools import cache
from types import FrameType

import torch
import torch.distributed as dist
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmunimoco.models.collectives import new_gloo_group

from .exact.checkpoint import ExactCheckpointHook

# EX_TEMPFAIL of sysexits.h: a temporary failure, worth another try.
REQUEUE = 75


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Save at the next step on SIGTERM, and exit with a status to requeue on.

    Slurm sends SIGTERM before it preempts a job or its time is over, clouds
    before they take a machine back. The current step is finished, a
    checkpoint is written, and the process exits with ``exit_code``;
    ``--resume`` continues from there. With several processes it is enough
    that one gets the signal: they agree, and save one step later.

    During a validation after which nothing has to be saved the process exits
    at once, and validates again when resumed.

    Without ``ExactCheckpointHook`` nothing can be saved: a warning, and
    SIGTERM ends the run as usual. A program's own handler of SIGTERM is left
    in place.

    Args:
        exit_code (int): Exit status, 1 to 255. Defaults to 75.

    Raises:
        ValueError: If the status is out of range.
    """

    # After all others: their work for a step is done, and saved.
    priority = 'LOWEST'

    def __init__(self, exit_code: int = REQUEUE) -> None:
        if not 0 < exit_code < 256:
            raise ValueError(
                'PreemptionHook.exit_code must be between 1 and 255, got '
                f'{exit_code}'
            )
        self.exit_code = exit_code
        self._requested = False
        self._exit_at_once = False
        self._installed = False
        self._checkpoints: ExactCheckpointHook | None = None
        self._group = None
        self._question = None
        self._answer = False

    def before_train(self, runner: Runner) -> None:
        """Install the signal handler."""
        found = (h for h in runner.hooks if isinstance(h, ExactCheckpointHook))
        self._checkpoints = next(found, None)
        if self._checkpoints is None:
            print_log(
                'No ExactCheckpointHook in default_hooks.checkpoint, so '
                'nothing is saved on SIGTERM.',
                logger='current',
                level=logging.WARNING,
            )
            return
        if get_world_size() > 1 and self._group is None:
            # On the CPU, so the question never waits for a GPU.
            self._group = new_gloo_group()
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and _is_free(signal.getsignal(signal.SIGTERM)):
            _reset_in_forks()
            signal.signal(signal.SIGTERM, self._handle)
            self._installed = True

    def after_train_iter(self, runner: Runner, *_, **__) -> None:
        """Save and exit, if requested.

        Raises:
            SystemExit: With the exit status.
        """
        if self._all_know() and runner.optim_wrapper.should_update():
            path = self._checkpoints.save_now(runner)
            self._exit(path or 'nothing, see above')

    def before_val(self, runner: Runner) -> None:
        """From now on exit at once, if the last step is saved."""
        if not self._installed:
            return
        self._exit_at_once = self._checkpoints.saved_iter == runner.iter
        if self._exit_at_once and self._requested:
            self._exit('what was saved before this validation')

    def after_val(self, runner: Runner) -> None:
        """Training follows, whose steps have to be saved."""
        self._exit_at_once = False

    def after_train(self, runner: Runner) -> None:
        """Remove the signal handler."""
        if self._question is not None:
            self._question[0].wait()
        if self._installed:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._installed = False

    def _all_know(self) -> bool:
        """Whether every process knows by now that it is to stop.

        The question of one step is answered at the next, so nobody waits.
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

    def _exit(self, saved: str) -> None:
        print_log(
            f'SIGTERM: saved is {saved}; exiting with status '
            f'{self.exit_code}, --resume continues from there.',
            logger='current',
            level=logging.WARNING,
        )
        raise SystemExit(self.exit_code)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._exit_at_once:
            raise SystemExit(self.exit_code)
        self._requested = True


def _is_free(handler: object) -> bool:
    """Whether SIGTERM has no handler, or that of a run that failed."""
    return handler == signal.SIG_DFL or _is_ours(handler)


def _is_ours(handler: object) -> bool:
    return isinstance(getattr(handler, '__self__', None), PreemptionHook)


@cache  # once per process
def _reset_in_forks() -> None:
    """Let SIGTERM end forked processes, such as a metric's pool, as usual.

    Otherwise they would inherit the handler, survive the signal, and whoever
    forked them would wait forever. The signal is blocked until the child has
    the default handler again, because Python forgets one that comes before.
    """
    blocked = None

    def before() -> None:
        nonlocal blocked
        if _is_ours(signal.getsignal(signal.SIGTERM)):
            blocked = signal.pthread_sigmask(
                signal.SIG_BLOCK, {signal.SIGTERM}
            )

    def in_parent() -> None:
        nonlocal blocked
        if blocked is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            blocked = None

    def in_child() -> None:
        if blocked is not None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        in_parent()

    os.register_at_fork(
        before=before, after_in_parent=in_parent, after_in_child=in_child
    )
