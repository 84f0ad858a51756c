"""Each step with its loss, in a file that a kill leaves as it is."""

import os
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

# The file; without it the hook does nothing.
VARIABLE = 'MMUNIMOCO_SOAK_STEPS'


@HOOKS.register_module()
class StepLogHook(Hook):
    """Write a line a step to the file that ``MMUNIMOCO_SOAK_STEPS`` names.

    The first line has the steps that were done before and those of the whole
    run, each other one a step and its loss, to the last bit.
    """

    def __init__(self) -> None:
        self._file: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Open the file."""
        path = os.environ.get(VARIABLE)
        if path and is_main_process():
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            self._file = os.open(path, flags, 0o644)
            self._write(runner.iter, runner.max_iters)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Write a line, before anything of this step is saved."""
        if self._file is not None:
            self._write(runner.iter + 1, float(outputs['loss']).hex())

    def after_train(self, runner: Runner) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, *words: Any) -> None:
        # One call, without a buffer: the line is there, or it is not.
        os.write(self._file, f'{words[0]} {words[1]}\n'.encode())
