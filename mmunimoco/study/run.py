"""Run a study and report on it; ``tools/study.py`` as a function."""

import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import FrameType

from rich.console import Console

from mmunimoco.engine.checks.work_folder import lock_folder
from mmunimoco.utils.versions import describe_environment

from .plan import SHOWN, Job, plan_jobs
from .pool import Options, Pool
from .prepare import prepare
from .progress import Display, plan_table, say
from .records import Results
from .report import FILES, print_report, write_report
from .spec import Study

FAILED, INTERRUPTED = 1, 130
RESULTS = 'results.jsonl'
# Gets all jobs of a study whose runs have all finished.
Draw = Callable[[Sequence[Job], Path], None]


def run_study(
    study: Study,
    work_dir: Path,
    console: Console,
    options: Options | None = None,
    any_code: bool = False,
    fresh: bool = False,
    draw: Draw | None = None,
) -> int:
    """Run what has no result yet, then write the report.

    Args:
        study (Study): The study.
        work_dir (Path): Absolute path of its work folder.
        console (Console): For plan, progress and results.
        options (Options, optional): How to run. Defaults to one run at a
            time.
        any_code (bool): Whether runs of other versions of the code count.
            Defaults to False.
        fresh (bool): Whether to remove all earlier runs of the study.
            Defaults to False.
        draw (Callable, optional): Called with all jobs and the work folder
            if every run has a result; writes ``figures/*.png``.

    Returns:
        int: Exit status: 0, 1 if a run failed, 130 after an interruption.

    Raises:
        ValueError: If the study is inconsistent.
        BlockingIOError: If another process runs it.
        RuntimeError: If its ``prepare`` fails.
    """
    with lock_folder(work_dir) or nullcontext():
        if fresh:
            remove_results(work_dir, drawn=draw is not None)
        results = Results(work_dir / RESULTS)
        jobs = plan_jobs(study, work_dir, results, any_code)
        failed: list[Job] = []
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            if prepare(study, work_dir, partial(say, console)):
                # What is in the files that it has made counts.
                jobs = plan_jobs(study, work_dir, results, any_code)
            with Display(console, jobs, results, study.gpus) as display:
                print_plan(jobs, results, study, console)
                failed = Pool(
                    *(jobs, results, options or Options(gpus=study.gpus)),
                    *(display, describe_environment(), work_dir),
                ).run()
            if draw is not None and not failed:
                draw(jobs, work_dir)
        except KeyboardInterrupt:
            console.print('Interrupted: the same command continues.')
            return INTERRUPTED
        finally:
            signal.signal(signal.SIGTERM, previous)
            report_study(study, jobs, results, work_dir, console)
    if failed:
        console.print(
            f'{len(failed)} of {len(jobs)} runs have no result, see '
            '"Failed runs" in the report. The same command tries them again.',
            highlight=False,
        )
    return FAILED if failed else 0


def remove_results(work_dir: Path, drawn: bool = False) -> None:
    """Remove what a study wrote, and nothing else in its work folder.

    Args:
        work_dir (Path): The work folder.
        drawn (bool): Whether the pictures in ``figures/`` are its own, too.
            Defaults to False: a user has put them there.
    """
    for name in ('runs', 'plots', *(['figures'] if drawn else [])):
        if (work_dir / name).exists():
            shutil.rmtree(work_dir / name)
    for name in (RESULTS, *FILES):
        (work_dir / name).unlink(missing_ok=True)


def print_plan(
    jobs: list[Job], results: Results, study: Study, console: Console
) -> None:
    """Print what is to do, and what it costs."""
    table, cost = plan_table(jobs, results, study.gpus)
    console.print(table, markup=False)
    console.print(cost, highlight=False)


def report_study(
    study: Study,
    jobs: list[Job],
    results: Results,
    work_dir: Path,
    console: Console,
) -> None:
    """Write the report of what is finished, and print its main table.

    Without any result the files stay as they are, which is said.
    """
    latest = results.latest
    # What is shown, and how, is what the file says today.
    records = [
        latest[job.key]
        | dict(
            protocol=_protocol(latest[job.key], job),
            series=job.variant.series,
            variant=job.variant.name,
            group=job.variant.group,
            grid=job.variant.grid,
            evaluation=job.evaluation,
        )
        for job in jobs
        if job.key in latest
    ]
    if not records:
        text = 'Nothing to report: no run of this study has a result yet.'
        if results.records:
            text += (
                f' What is in {results.path} is of other settings, or of '
                'another version of the code, which --any-code accepts.'
            )
        console.print(text, highlight=False, markup=False, soft_wrap=True)
        return
    page = write_report(
        *(work_dir, study.title, records, study.published),
        *(study.expectations, study.description),
    )
    print_report(console, page, records, study.expectations)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM stops a study as Ctrl-C does."""
    raise KeyboardInterrupt


def _protocol(record: dict, job: Job) -> dict:
    """That of a record, but shown as the study file says today."""
    kept = {k: v for k, v in record['protocol'].items() if k not in SHOWN}
    return kept | {k: v for k, v in job.settings.items() if k in SHOWN}
