"""Hooks with state of their own, across a resume."""

import pytest
import torch
from mmengine.hooks import EarlyStoppingHook, Hook
from noise_runs import STEPS, noise_runner

from mmunimoco.engine.exact.hook_state import HookStates
from mmunimoco.utils.safe_load import read_checkpoint


class Counting(Hook):
    """Has state that nothing saves."""

    def __init__(self):
        self.steps, self.limit = 0, 7
        self.seen = [torch.zeros(2)]

    def after_train_iter(self, *_, **__):
        self.steps += 1
        self.seen[0] += 1


class Carried(Counting):
    def state_dict(self):
        return dict(steps=self.steps, seen=self.seen)

    def load_state_dict(self, state):
        self.steps, self.seen = state['steps'], state['seen']


def exact_runner(folder, hooks, **changes):
    return noise_runner(
        folder,
        hooks=hooks,
        train_cfg=dict(type='ExactEpochLoop', max_epochs=2),
        **changes,
    )


def test_state_is_carried_or_listed(tmp_path, log_of):
    hooks = [Counting(), Carried(), Carried()]
    exact_runner(tmp_path, hooks).train()
    text = 'Hooks have changed values that are not in the checkpoint'
    log = log_of(tmp_path)
    assert log.count(text) == 1
    assert 'differ: Counting.steps, Counting.seen. Methods' in log

    again = [Counting(), Carried(), Carried()]
    again[2].steps = 100
    start = str(tmp_path / 'epoch_1.pth')
    options = dict(load_from=start, resume=True)
    exact_runner(tmp_path / 'again', again, **options).train()
    assert [hook.steps for hook in again] == [STEPS, 2 * STEPS, 2 * STEPS]
    assert again[1].seen[0].tolist() == [2 * STEPS] * 2
    log = log_of(tmp_path / 'again')
    assert 'which start anew: Counting.steps, Counting.seen\n' in log


def test_a_schedule_that_keeps_a_function_is_resumed(tmp_path):
    schedule = dict(type='OneCycleLR', eta_max=0.1, by_epoch=False)
    options = dict(param_scheduler=[schedule])
    exact_runner(tmp_path, [], **options).train()
    options |= dict(load_from=str(tmp_path / 'epoch_1.pth'), resume=True)
    exact_runner(tmp_path / 'again', [], **options).train()
    first, again = (
        read_checkpoint(path / 'epoch_2.pth')['param_schedulers'][0]
        for path in (tmp_path, tmp_path / 'again')
    )
    assert first == again and first['last_step'] == 2 * STEPS - 1


def test_early_stopping_of_mmengine_goes_on():
    hook, other = (EarlyStoppingHook('accuracy', rule='greater') for _ in 'ab')
    hook.wait_count, hook.best_score = 3, 71.5
    HookStates([other]).restore(HookStates([hook]).collect())
    assert (other.wait_count, other.best_score) == (3, 71.5)


def test_state_that_safe_loading_refuses_is_named():
    class Strange(Carried):
        def state_dict(self):
            return dict(values=[{1, 2}])

    with pytest.raises(TypeError, match=r'Strange.state_dict\(\) holds a set'):
        HookStates([Strange()]).collect()
