"""Run the stages that are not finished, then show what came out."""

import json
import shutil
import time
from collections.abc import Sequence

import torch
from rich.console import Console

from .outputs import OUTPUT_FILES, TRANSFER_FILES, output_stages
from .progress import PlannedStage, Reporter
from .running import THREADS, quiet
from .settings import DemoSettings
from .stages import Stage, training_stages
from .tables import print_results
from .transfer import transfer_stages
from .transfer_configs import require_transfer

# Bash's convention for a program that SIGINT ended.
INTERRUPTED = 130


def run_demo(
    settings: DemoSettings, console: Console, fresh: bool = False
) -> int:
    """Run the demo, or what is left of it.

    Args:
        settings (DemoSettings): The run.
        console (Console): Where progress and results are shown.
        fresh (bool): Start over. Defaults to False.

    Returns:
        int: Exit status: 0, or 130 after an interruption.

    Raises:
        ImportError: If transfer is asked for and what it needs is missing.
    """
    if settings.transfer:
        require_transfer()
    if fresh:
        remove_results(settings)
    _leave_a_core_to_the_loader()
    reporter = Reporter(console)
    try:
        training = training_stages(settings)
        transfer = transfer_stages(settings, training)
        outputs = output_stages(settings, training, transfer)
        _run_stages([*training, *transfer, *outputs], reporter)
    except KeyboardInterrupt:
        reporter.say(
            'Interrupted. Nothing is lost but the epoch that was running: '
            'run the same command again to continue.'
        )
        return INTERRUPTED
    summary = json.loads((settings.work_dir / 'summary.json').read_text())
    print_results(console, summary, settings.work_dir)
    return 0


def remove_results(settings: DemoSettings) -> None:
    """Remove what the demo wrote, and nothing else in the folder."""
    if settings.stages_dir.exists():
        shutil.rmtree(settings.stages_dir)
    for name in (*OUTPUT_FILES, *TRANSFER_FILES):
        (settings.work_dir / name).unlink(missing_ok=True)


def _leave_a_core_to_the_loader() -> None:
    """Use one thread less than there are cores, and few in any case.

    One process makes the views; beside it a thread for each core would spend
    its time waiting, and the demo's network is too small for many threads.
    """
    torch.set_num_threads(max(1, THREADS - 1))


def _run_stages(stages: Sequence[Stage], reporter: Reporter) -> None:
    plan = [PlannedStage(s.title, s.weight, s.finished) for s in stages]
    finished = sum(stage.finished for stage in plan)
    if finished:
        reporter.say(f'{finished} of {len(stages)} stages are finished.')
    for stage in stages:
        if stage.store.state == 'changed':
            reporter.say(f'{stage.title}: settings changed, starts over.')
    with reporter.plan(plan):
        for index, stage in enumerate(stages):
            if not stage.finished:
                with reporter.stage(index):
                    _run_stage(stage, reporter)


def _run_stage(stage: Stage, reporter: Reporter) -> None:
    if stage.store.state == 'finished':
        # An output is gone, and a record of it is no use.
        shutil.rmtree(stage.store.folder)
    stage.store.begin()
    start = time.monotonic()
    with quiet(stage.store.folder / 'console.log'):
        result = stage.run(reporter)
    result.setdefault('seconds', round(time.monotonic() - start, 1))
    stage.store.finish(result)
