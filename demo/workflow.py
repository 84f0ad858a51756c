"""Run the stages that are not finished, then show what came out."""

import json
import shutil

from rich.console import Console

from mmunimoco.utils.progress import ProgressDisplay

from .outputs import OUTPUT_FILES, TRANSFER_FILES
from .plan import plan_stages
from .pool import StageError, StagePool
from .settings import DemoSettings
from .stages import Stage
from .tables import print_results
from .transfer_configs import require_transfer

# Bash's convention for a program that SIGINT ended.
INTERRUPTED = 130


def run_demo(
    settings: DemoSettings,
    console: Console,
    fresh: bool = False,
    jobs: int | None = None,
) -> int:
    """Run the demo, or what is left of it.

    Args:
        settings (DemoSettings): The run.
        console (Console): Where progress and results are shown.
        fresh (bool): Start over. Defaults to False.
        jobs (int, optional): Stages at a time. Defaults to the number of
            cores, at most 4.

    Returns:
        int: Exit status: 0; 1 after the failure of a stage, 130 after an
        interruption.

    Raises:
        ImportError: If transfer is asked for and what it needs is missing.
        ValueError: If ``jobs`` is less than 1.
    """
    if settings.transfer:
        require_transfer()
    if fresh:
        remove_results(settings)
    display = ProgressDisplay(console)
    try:
        stages = plan_stages(settings)
        _tell_what_is_there(stages, display)
        StagePool(stages, display, jobs).run()
    except KeyboardInterrupt:
        display.say(
            'Interrupted. Nothing is lost but the epochs that were running: '
            'run the same command again to continue.'
        )
        return INTERRUPTED
    except StageError as error:
        display.say(f'demo: {error}')
        return 1
    summary = json.loads((settings.work_dir / 'summary.json').read_text())
    print_results(console, summary, settings.work_dir)
    return 0


def remove_results(settings: DemoSettings) -> None:
    """Remove what the demo wrote, and nothing else in the folder."""
    if settings.stages_dir.exists():
        shutil.rmtree(settings.stages_dir)
    for name in (*OUTPUT_FILES, *TRANSFER_FILES):
        (settings.work_dir / name).unlink(missing_ok=True)


def _tell_what_is_there(stages: list[Stage], display: ProgressDisplay) -> None:
    finished = sum(stage.finished for stage in stages)
    if finished:
        display.say(f'{finished} of {len(stages)} stages are finished.')
    for stage in stages:
        if stage.store.state == 'changed':
            display.say(f'{stage.title}: settings changed, starts over.')
