"""What a run prints."""

import io
import itertools
import re
import subprocess
import sys

import pytest
from exact_runs import TRAIN, write_config
from mmengine.hooks import LoggerHook
from noise_runs import noise_runner

from mmunimoco.engine import ProgressHook, console


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_if_nothing_was_logged_for_a_while(tmp_path, log_of):
    def lines(name, seconds):
        hooks = [dict(type='ProgressHook', seconds=seconds)]
        folder = tmp_path / name
        noise_runner(folder, hooks=hooks, log_level='INFO').train()
        return re.findall(r'Epoch\(train\).*\[ *(\d+)/12\]', log_of(folder))

    assert lines('a', 1000) == ['4', '8', '12']
    assert lines('b', 1e-9) == [str(i) for i in range(1, 13)]


def test_no_step_that_nothing_prints_restarts_the_clock(
    tmp_path, log_of, monkeypatch
):
    """Ten seconds a step; LoggerHook prints the tenth of 12 steps alone."""
    clock = itertools.count(step=10)
    monkeypatch.setattr(console.time, 'monotonic', lambda: next(clock))
    hooks = [dict(type='ProgressHook', seconds=40)]
    runner = noise_runner(tmp_path, hooks=hooks, log_level='INFO', epochs=3)
    (logger,) = [x for x in runner.hooks if isinstance(x, LoggerHook)]
    logger.interval = 10
    runner.train()
    pattern = r'Epoch\(train\) *\[(\d)\]\[ *(\d+)/12\]'
    found = re.findall(pattern, log_of(tmp_path))
    steps = [12 * (int(epoch) - 1) + int(step) for epoch, step in found]
    gaps = [b - a for a, b in itertools.pairwise([0, *steps, 36])]
    assert max(gaps) <= 4


def test_a_bar_in_a_terminal(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, 'stdout', terminal)
    monkeypatch.setenv('TERM', 'xterm')
    hooks = [dict(type='ProgressHook')]
    noise_runner(tmp_path, hooks=hooks, log_level='INFO').train()
    shown = terminal.getvalue()
    assert re.search(r'epoch 1/1, loss \d\.\d{3}.*12/12', shown)
    # Lines of the log stand above the bar, and the cursor is back.
    assert 'Epoch(train)' in shown
    assert shown.rfind('\x1b[?25h') > shown.rfind('\x1b[?25l')
    assert sys.stdout is terminal


def test_seconds_out_of_range():
    with pytest.raises(ValueError, match='ProgressHook.seconds'):
        ProgressHook(0)


@pytest.mark.slow
def test_config_and_environment_are_printed_only_if_asked(tmp_path, capfd):
    config = write_config(tmp_path, 0, 'interval=9', SHORT)

    def printed(name, *options):
        capfd.readouterr()
        command = [sys.executable, TRAIN, config, '--work-dir']
        subprocess.run([*command, tmp_path / name, *options], check=True)
        (log,) = (tmp_path / name).glob('*/*.log')
        return capfd.readouterr().out, log.read_text()

    out, log = printed('brief')
    assert 'Config:' not in out and 'Hooks will' not in out
    assert len(out.splitlines()) < 40 and 'Epoch(train) [1]' in out
    assert 'Config:' in log and 'Hooks will' in log and 'environment' in log
    out, _ = printed('verbose', '-v')
    assert 'Config:' in out and 'Hooks will' in out


SHORT = """
train_cfg = dict(max_epochs=1)
val_cfg = None
val_dataloader = None
val_evaluator = None
default_hooks = dict(checkpoint=dict(save_best=None))
"""
