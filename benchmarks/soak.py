"""Pre-train undisturbed, then with faults and restarts, and compare the bits.

python -m benchmarks.soak --minutes 5 --out work_dirs/soak.json
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from mmunimoco.utils.atomic import write_json
from mmunimoco.utils.safe_load import read_checkpoint
from mmunimoco.utils.versions import describe_environment

from .checkpoint_differences import NOT_COMPARED, differences
from .soak_faults import Checkpoints, inject, partial_files
from .soak_run import ROOT, WatchedRun
from .soak_verdict import (
    KEPT_CHECKPOINTS,
    KINDS,
    STOPS,
    describe_memory,
    judge,
    read_log,
)
from .tables import print_table

# What happens to the newest checkpoint while the run is down; 'part_file'
# leaves a half-written file beside it.
DAMAGES = ('truncated', 'corrupted', 'part_file', None)
BASE = ROOT / 'configs/demo/unimoco_resnet18_fmnist-10pct.py'
# 131 steps per epoch, some 15 s on one core.
IMAGES, BROKEN, EPOCH_SECONDS, INTERVAL = 6000, 12, 15, 25

CONFIG = """\
_base_ = [{base!r}]
custom_imports = dict(
    imports=['mmunimoco', 'benchmarks.soak_run'], allow_failed_imports=False
)
_data = _base_.train_dataloader.dataset
train_dataloader = dict(dataset=dict(
    _delete_=True, type='SkipBrokenImages', max_broken={broken}, dataset=dict(
        type='RepeatLabeled', times=_data.times, dataset=dict(
            type='PartialLabels', label_ratio=0.1, seed=0, dataset=dict(
                type='CustomDataset', data_root={images!r}, pipeline=[
                    dict(type='CheckedLoadImageFromFile'),
                    *_data.dataset.dataset.pipeline,
                ])))))
del _data
# A fraction of the demo's images for kNN.
val_dataloader = dict(dataset=dict(indices=500))
val_cfg = dict(bank_dataloader=dict(dataset=dict(indices=500)))
train_cfg = dict(
    type='ExactEpochLoop', max_epochs={epochs}, val_interval={val_interval})
default_hooks = dict(checkpoint=dict(
    by_epoch=False, interval={interval}, max_keep_ckpts={kept}))
custom_hooks = [*_base_.custom_hooks, dict(type='StepLogHook')]
randomness = dict(seed={seed}, deterministic=True)
"""


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    folder = args.work_dir.resolve() / time.strftime('%Y%m%d_%H%M%S')
    begin, console = time.monotonic(), Console()
    plan = args.plan or dict(
        seed=args.seed,
        processes=args.processes,
        images=IMAGES,
        # A quarter of the time for the undisturbed run.
        epochs=max(1, int(15 * args.minutes / EPOCH_SECONDS)),
        interval=INTERVAL,
    )
    deadline = None if args.plan else begin + 60 * args.minutes
    record = soak(plan, folder, deadline, console)
    verdict = judge(record)
    faults = record['faults']
    kinds = [f[key] for f in faults for key in ('kind', 'damage') if f[key]]
    results = dict(
        passed=not any(verdict.values()),
        verdict={name: found or 'yes' for name, found in verdict.items()},
        minutes=round((time.monotonic() - begin) / 60, 2),
        steps=record['undisturbed']['last'],
        restarts=len(record['starts']) - 1,
        steps_repeated=sum(fault['lost'] or 0 for fault in faults),
        most_repeated=max((fault['lost'] or 0 for fault in faults), default=0),
        faults_by_kind=Counter(kinds),
        memory=record['memory'],
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        **describe_environment(),
        plan=plan,
        record=record,
    )
    out = args.out or folder / 'soak.json'
    write_json(out, results)
    rows = [(k, '; '.join(v[:3]) or 'yes') for k, v in verdict.items()]
    print_table(console, 'Verdict', ('what', 'holds'), rows)
    console.print(f'Results: {os.path.relpath(out)}')
    return int(not results['passed'])


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.soak',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='On the CPU, on Linux. Exit status 0 if all of the verdict is '
        'yes. docs/reliability.md describes faults and verdict.',
    )
    parser.add_argument(
        '--minutes',
        type=float,
        default=60.0,
        help='approximate duration (default: 60); two faults are injected '
        'however short it is',
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--processes', type=int, default=1, help='that train together'
    )
    parser.add_argument(
        '--repeat',
        dest='plan',
        type=Path,
        metavar='FILE.json',
        help='repeat the plan of an earlier soak, however long it takes',
    )
    parser.add_argument('--out', type=Path, metavar='FILE.json')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/soak')
    )
    args = parser.parse_args(argv)
    if not Path('/proc/self/stat').is_file():
        parser.error('needs Linux: processes are found in /proc')
    if args.minutes <= 0 or args.processes < 1 or args.seed < 0:
        parser.error(
            '--minutes must be above 0, --processes at least 1, --seed not '
            'negative'
        )
    if args.plan is not None:
        try:
            args.plan = json.loads(args.plan.read_text())['plan']
        except (OSError, ValueError, KeyError, TypeError) as error:
            parser.error(f'--repeat {args.plan} has no plan ({error!r})')
    return args


def soak(
    plan: dict[str, Any],
    folder: Path,
    deadline: float | None,
    console: Console,
) -> dict[str, Any]:
    """Run undisturbed and disturbed.

    Args:
        plan (dict): ``seed``, ``processes``, ``images``, ``epochs``,
            ``interval`` (steps between two checkpoints) and ``faults``, which
            are drawn and added if missing.
        folder (Path): Folder of the soak.
        deadline (float | None): ``time.monotonic()`` after which no fault is
            injected; None to inject all of them.
        console (Console): Progress is printed there.

    Returns:
        dict: The record that ``soak_verdict.judge`` judges.
    """
    broken = write_images(folder / 'images', plan['images'], plan['seed'])
    record = dict(broken_images=broken, starts=[], faults=[])
    runs = [
        WatchedRun(write_config(plan, folder, name), folder / name, plan)
        for name in ('undisturbed', 'disturbed')
    ]
    plain, disturbed = runs
    try:
        plain.start(resume=False)
        first = record['undisturbed'] = plain.finish() | read_log(plain.said())
        if set(first['codes']) != {0}:
            raise SystemExit(f'error: the undisturbed run failed: {plain.log}')
        if 'faults' not in plan:
            left = deadline - time.monotonic()
            plan['faults'] = draw_faults(plan, plain, left)
        console.print(
            f'{plain.step} steps without a fault in {first["seconds"]:.0f} s; '
            f'{len(plan["faults"])} faults follow'
        )
        disturb(disturbed, plan, plain, record, deadline, console)
    finally:
        for run in runs:
            run.close()
    paths = [run.work_dir / f'iter_{plain.step}.pth' for run in runs]
    if all(path.is_file() for path in paths):
        checkpoints = [read_checkpoint(str(path)) for path in paths]
        # Which numbers of checkpoints are kept depends on SIGTERM.
        ignored = (*NOT_COMPARED, 'keep_ckpt_ids')
        found = list(differences(*checkpoints, not_compared=ignored))
    else:
        found = ['a last checkpoint is missing']
    return dict(
        record,
        differences=found,
        memory=describe_memory(plain.samples, disturbed.samples),
        processes_left=sorted(plain.survivors | disturbed.survivors),
        parts_left=partial_files(disturbed),
        checkpoints_left=Checkpoints(disturbed.work_dir).names(),
    )


def write_images(folder: Path, count: int, seed: int) -> int:
    """Write gray images of ten classes; return how many are broken.

    Broken files are empty, cut off in the header, random bytes or a web page.
    """
    generator = np.random.default_rng(seed)
    patterns = generator.integers(0, 128, (10, 28, 28))
    paths = []
    for index in range(count):
        pixels = patterns[index % 10] + generator.integers(0, 128, (28, 28))
        path = folder / f'{index % 10}/{index:05d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype('uint8')).save(path, compress_level=1)
        paths.append(path)
    for index, path in enumerate(random.Random(seed).sample(paths, BROKEN)):
        header, other = path.read_bytes()[:20], generator.bytes(200)
        page = b'<html>404 Not Found</html>'
        path.write_bytes((b'', header, other, page)[index % 4])
    return BROKEN


def write_config(plan: dict[str, Any], folder: Path, name: str) -> Path:
    """Write the config of a run; its name is the same, as checkpoints tell."""
    path = folder / name / 'soak.py'
    path.parent.mkdir()
    path.write_text(
        CONFIG.format(
            base=str(BASE),
            images=str(folder / 'images'),
            broken=BROKEN,
            epochs=plan['epochs'],
            val_interval=max(1, plan['epochs'] // 30),
            interval=plan['interval'],
            kept=KEPT_CHECKPOINTS,
            seed=plan['seed'],
        )
    )
    return path


def draw_faults(
    plan: dict[str, Any], plain: WatchedRun, seconds: float
) -> list[dict[str, Any]]:
    """Draw faults that fit into a time, spread over the run.

    All kinds come equally often. A fault comes ``delay`` (in steps) after
    ``step`` and hits ``rank``; ``damage`` is done to a file at ``place``
    (0 ... 1) while the run is down.
    """
    interval, steps = plan['interval'], plain.step
    fault = plain.seconds_to_train + 2 + interval * plain.step_seconds
    spare = seconds - plain.seconds_to_train - steps * plain.step_seconds - 8
    count = max(2, int(spare / fault))
    source = random.Random(plan['seed'])

    def deal(cards: tuple) -> list:
        dealt = []
        while len(dealt) < count:
            dealt += source.sample(cards, len(cards))
        return dealt[:count]

    faults = []
    # None in the last two intervals, so that the run can reach its end.
    last = max(3, steps - 2 * interval)
    for index, (kind, damage) in enumerate(
        zip(deal(KINDS), deal(DAMAGES), strict=True)
    ):
        step = 2 + int((last - 2) * (index + source.random()) / count)
        faults.append(
            dict(
                kind=kind,
                rank=source.randrange(plan['processes']),
                step=step,
                delay=source.random(),
                damage=damage if kind in STOPS else None,
                place=source.random(),
            )
        )
    return faults


def disturb(
    run: WatchedRun,
    plan: dict[str, Any],
    plain: WatchedRun,
    record: dict[str, Any],
    deadline: float | None,
    console: Console,
) -> None:
    """Start the run, disturb it and start it again, until it ends."""
    files, faults = Checkpoints(run.work_dir), list(plan['faults'])
    starts, previous, damaged = record['starts'], None, None
    while True:
        expected = next(iter(files.whole()), None)
        run.start(resume=bool(starts))
        fault = inject_until_stop(run, faults, plain, record, console)
        start = run.finish() | read_log(run.said())
        start.update(expected=expected, damaged=damaged)
        start['other_loss'] = first_difference(plain.losses, run)
        starts.append(start)
        if previous:
            count_lost(previous, starts, plan['interval'])
        if fault is None or start['hung']:
            return
        previous, damaged = fault, None
        name = files.damage(fault['damage'], fault['place'])
        if name is None:
            fault['damage'] = None
        else:
            console.print(f'while it is down: {fault["damage"]}: {name}')
            damaged = None if fault['damage'] == 'part_file' else name
        rest = (plain.step - run.step) * plain.step_seconds + 30
        late = deadline and time.monotonic() + rest > deadline
        if late and len(record['faults']) > 1:
            faults.clear()


def inject_until_stop(
    run: WatchedRun,
    faults: list[dict[str, Any]],
    plain: WatchedRun,
    record: dict[str, Any],
    console: Console,
) -> dict[str, Any] | None:
    """Inject faults, in order, until one ends the present start.

    Returns that fault, or None if the run ends by itself or hangs, which
    ``WatchedRun.finish`` notices.
    """
    while faults:
        fault = dict(faults[0], start=len(record['starts']), lost=None)
        try:
            if not run.wait_for_step(fault['step']):
                return None
            time.sleep(fault['delay'] * plain.step_seconds)
            fault['injected'] = inject(run, fault['kind'], fault['rank'])
        except TimeoutError:
            return None
        faults.pop(0)
        fault.update(at=run.step, bound=None)
        record['faults'].append(fault)
        console.print(f'step {run.step}: {fault["kind"]}')
        if fault['kind'] in STOPS and fault['injected']:
            return fault
    return None


def first_difference(losses: list[str], run: WatchedRun) -> int | None:
    """Return the first step whose loss differs from the undisturbed one."""
    for step, loss in enumerate(run.losses, (run.first or 0) + 1):
        if step > len(losses) or losses[step - 1] != loss:
            return step
    return None


def count_lost(
    fault: dict[str, Any], starts: list[dict[str, Any]], interval: int
) -> None:
    """Note the steps repeated because of a fault, and their upper bound."""
    ended, resumed = starts[-2:]
    if ended['last'] is None or resumed['first'] is None:
        return
    failed = {
        step
        for start in starts
        for step in start['failed_saves']
        if resumed['first'] < step <= ended['last']
    }
    # SIGTERM saves; a damaged or failed checkpoint costs another interval.
    intervals = (fault['kind'] != 'sigterm') + len(failed)
    intervals += fault['damage'] in ('truncated', 'corrupted')
    fault['lost'] = ended['last'] - resumed['first']
    fault['bound'] = intervals * interval


if __name__ == '__main__':
    # SIGTERM acts as Ctrl-C, so that no training is left running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
