"""Stages that only wait, fail or die, for tests of who runs them."""

import json
import os
import signal
import time
from pathlib import Path

from demo.interrupt import SafeInterrupt
from demo.settings import DemoSettings
from demo.stages import Stage
from demo.store import StageStore


def waiting_stages(settings: DemoSettings) -> list[Stage]:
    """Three that may run side by side, and one that needs two of them."""
    stages = [_stage(settings, name, _wait) for name in 'abc']
    return [*stages, _stage(settings, 'last', _wait, after=('a', 'b'))]


def failing_stages(settings: DemoSettings) -> list[Stage]:
    """One that fails beside one that would take long, and a third."""
    return [
        _stage(settings, 'bad', _fail),
        _stage(settings, 'long', _train),
        _stage(settings, 'next', _wait),
    ]


def dying_stages(settings: DemoSettings) -> list[Stage]:
    """One whose process is killed, as for want of memory."""
    return [_stage(settings, 'bad', _die)]


def training_stages(settings: DemoSettings) -> list[Stage]:
    """Two that go on until they are stopped."""
    return [_stage(settings, name, _train) for name in 'ab']


def _stage(settings, name, run, after=()) -> Stage:
    store = StageStore(settings.stages_dir / name, name)

    def run_in_folder(reporter) -> dict:
        return run(reporter, store.folder)

    return Stage(name, name, 1.0, store, run_in_folder, after=after)


def _wait(reporter, folder: Path) -> dict:
    start = time.time()
    print('from the stage')
    reporter.update(0.5, 'half', milestone=True)
    time.sleep(0.3)
    return dict(span=[start, time.time()], pid=os.getpid())


def _fail(reporter, folder: Path) -> dict:
    deadline = time.monotonic() + 60
    while not (folder.parent / 'long' / 'whole').is_file():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    raise ValueError('nothing to be had')


def _die(reporter, folder: Path) -> dict:
    os.kill(os.getpid(), signal.SIGKILL)


def _train(reporter, folder: Path) -> dict:
    """Steps that are written whole or not at all, until interrupted."""
    step = 0
    with SafeInterrupt() as interrupt:
        while True:
            step += 1
            (folder / 'half').write_text(str(step))
            time.sleep(0.05)
            (folder / 'half').rename(folder / 'whole')
            reporter.update(0.1, f'step {step}', milestone=True)
            interrupt.check()


def results(settings: DemoSettings) -> dict[str, dict]:
    """Results of the stages that are finished."""
    records = {
        path.parent.name: json.loads(path.read_text())
        for path in settings.stages_dir.glob('*/stage.json')
    }
    return {n: r['result'] for n, r in records.items() if r['finished']}
