"""Ctrl-C, and going on after it, in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from demo_helpers import run_captured, write_tiny_configs

from demo.interrupt import SafeInterrupt
from demo.settings import DemoSettings

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
from rich.console import Console
from demo import DemoSettings, run_demo
work_dir, config_dir = map(Path, sys.argv[1:])
settings = DemoSettings(work_dir, config_dir=config_dir)
sys.exit(run_demo(settings, Console(file=sys.stdout, width=200), jobs=2))
"""
EPOCHS = 4


def test_signal_waits_for_a_safe_point():
    # Shells have programs that they start in the background ignore it.
    before = signal.getsignal(signal.SIGINT)
    with SafeInterrupt() as interrupt:
        interrupt.check()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def interrupted(tmp_path) -> tuple[DemoSettings, str, int]:
    """A demo that got SIGINT when it had reported its second epoch."""
    configs = write_tiny_configs(tmp_path / 'configs', EPOCHS)
    settings = DemoSettings(tmp_path / 'demo', config_dir=configs)
    process = subprocess.Popen(
        [sys.executable, '-u', '-c', PROGRAM, settings.work_dir, configs],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(rf'epoch 2/{EPOCHS}', line):
            process.send_signal(signal.SIGINT)
    return settings, ''.join(lines), process.wait(timeout=60)


def test_interrupted_run_goes_on_where_it_stopped(interrupted):
    settings, output, status = interrupted
    assert status == 130, output
    assert 'run the same command again' in output.splitlines()[-1]
    assert 'Traceback' not in output

    folder = settings.stages_dir / 'labels-0'
    assert not json.loads((folder / 'stage.json').read_text())['finished']
    done = torch.load(folder / 'epoch_2.pth', weights_only=False)
    assert done['meta']['epoch'] == 2
    leftovers = list(settings.work_dir.rglob('*.part*'))
    assert leftovers == []

    status, output = run_captured(settings)
    assert status == 0
    first = _epochs_reported(output)
    assert first == [3, 4]
    summary = json.loads((settings.work_dir / 'summary.json').read_text())
    entry = summary['pretrain'][0]
    assert entry['epochs'] == EPOCHS
    epochs = [epoch for epoch, _ in entry['curves']['loss']]
    assert epochs == list(range(1, EPOCHS + 1))
    seconds = done['message_hub']['runtime_info']['demo_seconds']
    assert entry['seconds'] > seconds > 0


def _epochs_reported(output: str) -> list[int]:
    """Epochs of the first pre-training that a run told of."""
    pattern = rf'Pre-train with 0 % of the labels: epoch (\d+)/{EPOCHS}'
    return [int(epoch) for epoch in re.findall(pattern, output)]
