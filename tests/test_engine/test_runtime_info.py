"""The log with values read late, against mmengine's."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmunimoco.engine import DelayedRuntimeInfoHook, runtime_info


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
    'loop', [dict(by_epoch=True, max_epochs=2), dict(max_iters=14)]
)
@pytest.mark.parametrize('interval', [3, 5])
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


def test_nothing_is_read_before_it_is_logged(monkeypatch):
    """On a device that has no values to read."""
    hook = DelayedRuntimeInfoHook()
    monkeypatch.setattr(runtime_info, 'is_logged', lambda *_: False)
    for step in range(3):
        loss = torch.zeros((), device='meta', requires_grad=True) * 1
        hook.after_train_iter(None, step, None, dict(loss=loss))
    assert not any(value.requires_grad for _, value in hook._waiting)
    assert len(hook._waiting) == 3
