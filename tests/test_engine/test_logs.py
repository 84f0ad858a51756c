"""What a run prints; the log with values read late, against mmengine's."""

import errno
import io
import itertools
import json
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from exact_runs import TRAIN, write_config
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel
from mmengine.runner import LogProcessor, Runner
from mmengine.visualization import vis_backend
from noise_runs import noise_runner

from mmunimoco.engine import (
    DelayedRuntimeInfoHook,
    PatientVisBackend,
    ProgressHook,
    SpeedMonitorHook,
    logs,
)


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
    monkeypatch.setattr(logs.time, 'monotonic', lambda: next(clock))
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


def test_config_and_environment_are_printed_only_if_asked(
    tmp_path, monkeypatch, capfd
):
    config = write_config(tmp_path, 0, 'interval=9', SHORT)

    def printed(name, *options):
        capfd.readouterr()
        command = [TRAIN, config, '--work-dir', tmp_path / name, *options]
        monkeypatch.setattr(sys, 'argv', [str(word) for word in command])
        MMLogger._instance_dict.clear()
        runpy.run_path(sys.argv[0], run_name='__main__')
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


class Counter(BaseModel):
    """Its loss is the number of the step; a second value comes at odd ones."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.step = 0

    def forward(self, inputs, mode):
        self.step += 1
        losses = dict(loss=self.weight * 0 + self.step)
        if self.step % 2:
            losses['odd'] = torch.tensor(float(self.step))
        return losses


def train(folder, hook, interval, checkpoint=None, **loop):
    """Run 14 steps; the logged lines, and the hub's history of the loss."""
    runner = Runner(
        model=Counter(),
        work_dir=str(folder),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.zeros(1))] * 7,
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=1,
        ),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            runtime_info=hook,
            logger=dict(type='LoggerHook', interval=interval),
            checkpoint=checkpoint,
        ),
        default_scope='mmengine',
        experiment_name=folder.name,
    )
    runner.train()
    (path,) = folder.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [{k: x.get(k) for k in ('loss', 'odd', 'step')} for x in lines]
    return kept, runner.message_hub.get_scalar('train/loss').data


@pytest.mark.parametrize(
    ('interval', 'loop'),
    [(3, dict(by_epoch=True, max_epochs=2)), (5, dict(max_iters=14))],
)
def test_logs_the_same(tmp_path, interval, loop):
    results = []
    for hook in (RuntimeInfoHook, DelayedRuntimeInfoHook):
        folder = tmp_path / f'{hook.__name__}{interval}{len(loop)}'
        folder.mkdir()
        loop = dict(by_epoch=False) | loop
        results.append(train(folder, hook(), interval, **loop))
    (expected, (other, other_counts)), (lines, (values, counts)) = results
    assert lines == expected and len(lines) >= 14 // interval - 1
    assert values.tolist() == other.tolist() == list(range(1, 15))
    assert counts.tolist() == other_counts.tolist()


@pytest.mark.parametrize(
    'kind', ['CheckpointHook', 'mmpretrain.ExactCheckpointHook']
)
def test_checkpoint_between_two_log_lines_has_all_values(tmp_path, kind):
    checkpoint = dict(type=kind, by_epoch=False, interval=4)
    loop = dict(by_epoch=False, max_iters=14)
    folder = Path(tmp_path / 'run')
    hook = DelayedRuntimeInfoHook()
    lines, _ = train(folder, hook, 5, checkpoint, **loop)
    assert [line['step'] for line in lines] == [5, 10]
    saved = torch.load(folder / 'iter_8.pth', weights_only=False)
    history = saved['message_hub']['log_scalars']['train/loss'].data[0]
    assert history.tolist() == list(range(1, 9))


def test_values_that_cannot_be_written_do_not_stop_a_run(
    tmp_path, monkeypatch
):
    """The disk is full after half of a line."""
    backend = PatientVisBackend(str(tmp_path))

    def write_half(value, file, **_):
        file.write(json.dumps(value)[:9])
        raise OSError(errno.ENOSPC, 'No space left on device')

    for step in range(4):
        with monkeypatch.context() as patch:
            if step in (0, 2):
                patch.setattr(vis_backend, 'dump', write_half)
            backend.add_scalars(dict(loss=1.0), step)
    lines = (tmp_path / 'scalars.json').read_text().splitlines()
    assert [json.loads(line)['step'] for line in lines] == [1, 3]


def test_validation_sees_all_steps_before_it():
    """Such as CollapseHook, which judges by them."""
    hub = MessageHub.get_instance('steps before a validation')
    runner = SimpleNamespace(message_hub=hub)
    hook = DelayedRuntimeInfoHook()
    hook._waiting = [('loss', torch.tensor(2.0)), ('loss', torch.tensor(4.0))]
    hook.before_val(runner)
    assert hub.get_scalar('train/loss').mean(2) == 3.0
    assert hub.get_info('loop_stage') == 'val'  # of mmengine's hook


def test_nothing_is_read_before_it_is_logged(monkeypatch):
    """On a device that has no values to read."""
    hook = DelayedRuntimeInfoHook()
    monkeypatch.setattr(logs, 'is_logged', lambda *_: False)
    for step in range(3):
        loss = torch.zeros((), device='meta', requires_grad=True) * 1
        hook.after_train_iter(None, step, None, dict(loss=loss))
    assert not any(value.requires_grad for _, value in hook._waiting)
    assert len(hook._waiting) == 3


def test_speed_of_a_run(tmp_path):
    hooks = [dict(type='SpeedMonitorHook')]
    noise_runner(tmp_path, hooks=hooks).train()
    (path,) = tmp_path.glob('*/vis_data/scalars.json')
    lines = map(json.loads, path.read_text().splitlines())
    line = [line for line in lines if 'loss' in line][-1]
    # Averaged over the last ten steps, as mmengine's own values are.
    share = 100 * line['data_time'] / line['time']
    assert line['data_wait_share'] == pytest.approx(share, rel=0.01)
    assert 'images_per_second' not in line  # without a config


@pytest.mark.parametrize(
    ('loader', 'rate'), [(dict(batch_size=8), 2 * 8 / 0.5), ({}, None)]
)
def test_images_a_second_are_those_of_all_processes(loader, rate, monkeypatch):
    monkeypatch.setattr(logs, 'get_world_size', lambda: 2)
    monkeypatch.setattr(logs, 'is_logged', lambda *_: True)
    hub = MessageHub('speed')
    for time, data_time in ((9, 9), (0.4, 0.1), (0.6, 0)):
        hub.update_scalar('train/time', time)
        hub.update_scalar('train/data_time', data_time)
    runner = SimpleNamespace(
        cfg=dict(train_dataloader=loader),
        message_hub=hub,
        log_processor=LogProcessor(window_size=2),
    )
    SpeedMonitorHook().after_train_iter(runner, 0)
    found = {name: hub.get_scalar(name).current() for name in hub.log_scalars}
    assert found['train/data_wait_share'] == pytest.approx(10)
    assert found.get('train/images_per_second') == rate
