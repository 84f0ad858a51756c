"""Stages in processes of their own: order, failures, interruption."""

import io
import os
import signal
import threading
import time

import fake_stages
import pytest
from rich.console import Console

from demo.pool import StageError, StagePool
from demo.settings import DemoSettings
from mmunimoco.utils.progress import ProgressDisplay


@pytest.fixture
def settings(tmp_path) -> DemoSettings:
    return DemoSettings(tmp_path / 'demo')


def _run(settings, plan, jobs=2, out=None) -> str:
    out = out or io.StringIO()
    display = ProgressDisplay(Console(file=out, width=200))
    StagePool(plan(settings), display, jobs).run()
    return out.getvalue()


@pytest.mark.parametrize('jobs', [1, 2])
def test_stages_run_side_by_side_after_those_they_need(settings, jobs):
    output = _run(settings, fake_stages.waiting_stages, jobs)
    found = fake_stages.results(settings)
    assert set(found) == {'a', 'b', 'c', 'last'}
    spans = {name: result['span'] for name, result in found.items()}
    at_a_time = [
        sum(s <= start < e for s, e in spans.values())
        for start, _ in spans.values()
    ]
    assert max(at_a_time) == jobs
    assert spans['last'][0] > max(spans['a'][1], spans['b'][1])
    processes = {result['pid'] for result in found.values()}
    assert len(processes | {os.getpid()}) == 5
    for line in ('[1/4] a: starting', '[3/4] c: half', '[4/4] last: done'):
        assert line in output
    log = settings.stages_dir / 'c' / 'console.log'
    assert log.read_text() == 'from the stage\n'


def test_finished_stages_are_left_alone(settings):
    _run(settings, fake_stages.waiting_stages)
    before = fake_stages.results(settings)
    assert _run(settings, fake_stages.waiting_stages) == ''
    assert fake_stages.results(settings) == before


def test_failure_is_told_and_the_others_stop_at_a_whole_step(settings):
    with pytest.raises(StageError) as error:
        _run(settings, fake_stages.failing_stages)
    message = str(error.value)
    assert 'ValueError: nothing to be had' in message
    assert 'the stage bad failed' in message and 'console.log' in message
    folder = settings.stages_dir / 'long'
    assert (folder / 'whole').is_file() and not (folder / 'half').exists()
    assert fake_stages.results(settings) == {}
    assert not (settings.stages_dir / 'next').exists()


def test_process_that_was_killed_is_told(settings):
    with pytest.raises(StageError, match='bad failed.*\n.*by signal 9'):
        _run(settings, fake_stages.dying_stages)


def test_signal_stops_all_of_them_at_a_whole_step(settings):
    out = io.StringIO()

    def interrupt():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if 'a: step' in out.getvalue() and 'b: step' in out.getvalue():
                break
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        _run(settings, fake_stages.training_stages, out=out)
    for name in 'ab':
        folder = settings.stages_dir / name
        assert (folder / 'whole').is_file()
        assert not (folder / 'half').exists()


def test_no_jobs_are_refused(settings):
    with pytest.raises(ValueError, match='--jobs'):
        _run(settings, fake_stages.waiting_stages, jobs=0)
