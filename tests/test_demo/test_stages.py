"""Stages: their records, and running them in processes of their own."""

import io
import os
import signal
import time

import pytest
from rich.console import Console

from demo.display import Display
from demo.interrupt import SafeInterrupt
from demo.pool import StageError, StagePool
from demo.stages import Stage


def _stage(folder, run=None, **options):
    return Stage(folder, folder.name, 1.0, run, **options)


def test_fingerprint_depends_on_name_key_and_needs(tmp_path):
    a = _stage(tmp_path / 'a')
    stages = [
        a,
        _stage(tmp_path / 'b'),
        _stage(tmp_path / 'a', key=dict(x=1, y=2)),
        _stage(tmp_path / 'a', key=dict(x=1, y=3)),
        _stage(tmp_path / 'a', needs=(a,)),
    ]
    assert len({stage.fingerprint for stage in stages}) == 5
    same = _stage(tmp_path / 'elsewhere' / 'a', key=dict(y=2, x=1))
    assert same.fingerprint == stages[2].fingerprint


def test_states_of_a_stage(tmp_path):
    output = tmp_path / 'output'
    stage = _stage(tmp_path / 'a', outputs=(output,))
    assert stage.state == 'absent'
    stage.prepare()
    (stage.folder / 'epoch_1.pth').touch()
    stage.prepare()
    assert stage.state == 'started'
    assert (stage.folder / 'epoch_1.pth').exists(), 'a started stage is kept'
    output.touch()
    stage.finish(dict(top1=1.5))
    assert stage.state == 'finished' and stage.result == dict(top1=1.5)
    output.unlink()
    assert stage.state == 'absent', 'a lost output is made again'

    changed = _stage(tmp_path / 'a', key='other')
    assert changed.state == 'changed'
    changed.prepare()
    assert changed.state == 'started'
    assert not (changed.folder / 'epoch_1.pth').exists()
    for content in ('', '{"finger', '[]', 'null'):
        (changed.folder / 'stage.json').write_text(content)
        assert changed.state == 'absent', content


def test_signal_waits_for_a_safe_point():
    before = signal.getsignal(signal.SIGINT)
    with SafeInterrupt() as interrupt:
        interrupt.check()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def _run(stages, jobs=2, out=None) -> str:
    out = out or io.StringIO()
    StagePool(stages, Display(Console(file=out, width=200)), jobs).run()
    return out.getvalue()


def _wait(report):
    start = time.time()
    print('output of the stage')
    report(0.5, 'half', True)
    time.sleep(0.3)
    return dict(span=[start, time.time()], pid=os.getpid())


@pytest.mark.parametrize('jobs', [1, 2])
def test_stages_run_in_parallel_after_those_they_need(tmp_path, jobs):
    stages = [_stage(tmp_path / name, _wait) for name in 'abc']
    stages.append(_stage(tmp_path / 'last', _wait, needs=tuple(stages[:2])))
    output = _run(stages, jobs)
    spans = {stage.name: stage.result['span'] for stage in stages}
    parallel = [
        sum(begin <= start < end for begin, end in spans.values())
        for start, _ in spans.values()
    ]
    assert max(parallel) == jobs
    assert spans['last'][0] > max(spans['a'][1], spans['b'][1])
    processes = {stage.result['pid'] for stage in stages}
    assert len(processes | {os.getpid()}) == 5
    for line in ('[1/4] a: starting', '[3/4] c: half', '[4/4] last: done'):
        assert line in output
    log = tmp_path / 'c' / 'console.log'
    assert log.read_text() == 'output of the stage\n'
    assert _run(stages, jobs) == '', 'finished stages are skipped'


def _steps(folder):
    """A stage of endless steps, each of which makes ``half`` ``whole``."""

    def run(report):
        with SafeInterrupt() as interrupt:
            for step in range(1000):
                (folder / 'half').write_text(str(step))
                time.sleep(0.05)
                (folder / 'half').rename(folder / 'whole')
                report(0.1, f'step {step}', True)
                interrupt.check()

    return _stage(folder, run)


def test_after_a_failure_the_others_stop_at_a_safe_point(tmp_path):
    def fail(report):
        while not (tmp_path / 'long' / 'whole').is_file():
            time.sleep(0.05)
        raise ValueError('no such thing')

    after = _stage(tmp_path / 'next', _wait)
    stages = [_stage(tmp_path / 'bad', fail), _steps(tmp_path / 'long'), after]
    with pytest.raises(StageError) as error:
        _run(stages)
    message = str(error.value)
    assert 'stage bad failed' in message and 'console.log' in message
    assert 'ValueError: no such thing' in message
    assert (tmp_path / 'long' / 'whole').is_file()
    assert not (tmp_path / 'long' / 'half').exists()
    assert [stage.state for stage in stages] == ['started'] * 2 + ['absent']


def test_killed_process_is_reported(tmp_path):
    stage = _stage(
        tmp_path / 'bad', lambda report: os.kill(os.getpid(), signal.SIGKILL)
    )
    with pytest.raises(StageError, match='bad failed.*\n.*by signal 9'):
        _run([stage])


def test_signal_stops_all_stages_at_a_safe_point(tmp_path):
    class Output(io.StringIO):
        def write(self, text):
            super().write(text)
            shown = self.getvalue()
            if 'a: step' in shown and 'b: step' in shown and not self.sent:
                self.sent = True
                os.kill(os.getpid(), signal.SIGINT)

        sent = False

    with pytest.raises(KeyboardInterrupt):
        _run([_steps(tmp_path / name) for name in 'ab'], out=Output())
    for name in 'ab':
        assert (tmp_path / name / 'whole').is_file()
        assert not (tmp_path / name / 'half').exists()
