"""The log with values read late against mmengine's."""

import json

import pytest
import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmunimoco.engine import DelayedRuntimeInfoHook, delayed_log_hook


class Toy(BaseModel):
    """Its loss tells the step; a second value comes every other step."""

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


def train(folder, hook, interval, **loop):
    """Run 14 steps; the logged lines, and the hub's history of the loss."""
    runner = Runner(
        model=Toy(),
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
            checkpoint=None,
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
    (lines, (values, counts)), (wanted, (other, other_counts)) = results
    assert lines == wanted and len(lines) >= 14 // interval - 1
    assert values.tolist() == other.tolist() == list(range(1, 15))
    assert counts.tolist() == other_counts.tolist()


def test_nothing_is_read_before_it_is_logged(monkeypatch):
    """On a device that has no values to read."""
    hook = DelayedRuntimeInfoHook()
    monkeypatch.setattr(delayed_log_hook, 'is_logged', lambda *_: False)
    for step in range(3):
        loss = torch.zeros((), device='meta', requires_grad=True) * 1
        hook.after_train_iter(None, step, None, dict(loss=loss))
    assert not any(value.requires_grad for _, value in hook._waiting)
    assert len(hook._waiting) == 3
