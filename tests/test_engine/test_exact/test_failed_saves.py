"""Checkpoints that cannot be written, and what the run knows of them."""

import shutil

import pytest
import torch
from mmengine.hooks import Hook
from noise_runs import N, Noise, noise_runner

from mmunimoco.engine import ExactCheckpointHook


class _Validate(Hook):
    """Gives the checkpoint hook a score after each epoch."""

    priority = 'LOWEST'

    def __init__(self, scores):
        self.scores = scores

    def after_train_epoch(self, runner):
        (hook,) = (h for h in runner.hooks if hasattr(h, 'save_best'))
        # The loop counts the epoch after its hooks.
        runner.train_loop._epoch += 1
        hook.after_val_epoch(runner, self.scores[runner.epoch - 1])
        runner.train_loop._epoch -= 1


def train(
    work_dir,
    monkeypatch,
    failing,
    epochs=4,
    scores=(),
    resume_from=None,
    **options,
):
    """Train; files whose names are in ``failing`` cannot be written."""
    runner = noise_runner(
        work_dir,
        epochs=epochs,
        train_dataloader=dict(
            dataset=Noise(length=N),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=N,
            collate_fn=dict(type='default_collate'),
        ),
        default_hooks=dict(
            checkpoint=dict(type='ExactCheckpointHook', interval=1, **options)
        ),
        log_level='INFO',
        resume=resume_from is not None,
        load_from=resume_from,
    )
    save = runner.save_checkpoint

    def save_or_fail(out_dir, filename, *arguments, **others):
        if filename in failing:
            raise OSError(f'no space for {filename}')
        save(out_dir, filename, *arguments, **others)

    monkeypatch.setattr(runner, 'save_checkpoint', save_or_fail)
    if scores:
        runner.register_hook(_Validate(scores))
    runner.train()


@pytest.mark.parametrize('save_best', ['score', 'auto'])
def test_best_that_is_not_written_is_not_the_best(
    tmp_path, monkeypatch, log_of, save_best
):
    scores = [dict(score=x) for x in (10, 50, 40, 45)]
    options = dict(scores=scores, save_best=save_best, rule='greater')
    train(tmp_path, monkeypatch, ['best_score_epoch_2.pth'], **options)
    assert [path.name for path in tmp_path.glob('best_*')] == [
        'best_score_epoch_4.pth'
    ]
    hub = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    hub = hub['message_hub']['runtime_info']
    assert hub['best_score'] == 10
    assert hub['best_ckpt'].endswith('best_score_epoch_1.pth')
    log = log_of(tmp_path)
    assert 'best_score_epoch_2.pth could not be written: no space' in log
    assert 'is saved to best_score_epoch_2.pth' not in log
    assert 'is saved to best_score_epoch_3.pth' in log
    assert log.count('The previous best checkpoint') == 2


def test_one_of_two_best_is_not_written(tmp_path, monkeypatch):
    scores = [dict(a=1, b=9), dict(a=2, b=8), dict(a=1, b=7)]
    options = dict(scores=scores, save_best=['a', 'b'])
    options |= dict(rule=['greater', 'less'], epochs=3)
    train(tmp_path, monkeypatch, ['best_b_epoch_2.pth'], **options)
    best = sorted(path.name for path in tmp_path.glob('best_*'))
    assert best == ['best_a_epoch_2.pth', 'best_b_epoch_3.pth']
    saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    hub = saved['message_hub']['runtime_info']
    assert (hub['best_score_a'], hub['best_score_b']) == (2, 9)


@pytest.mark.parametrize('save_best', ['a', ['a', 'b']])
def test_the_best_of_the_run_before_is_not_removed(
    tmp_path, monkeypatch, save_best
):
    first, second = tmp_path / 'first', tmp_path / 'second'
    scores = [dict(a=x, b=x) for x in (1, 2)]
    options = dict(scores=scores, save_best=save_best, rule='greater')
    train(first, monkeypatch, [], epochs=1, **options)
    options |= dict(resume_from=str(first / 'epoch_1.pth'), epochs=2)
    train(second, monkeypatch, [], **options)
    for number, folder in enumerate((first, second), 1):
        best = {path.name for path in folder.glob('best_*')}
        assert best == {f'best_{key}_epoch_{number}.pth' for key in save_best}


def test_a_copied_folder_replaces_its_own_best(tmp_path, monkeypatch, log_of):
    first, second = tmp_path / 'first', tmp_path / 'second'
    scores = [dict(score=x) for x in (1, 2, 3)]
    options = dict(scores=scores, save_best='score', rule='greater')
    train(first, monkeypatch, [], epochs=1, **options)
    shutil.copytree(first, second)
    options |= dict(resume_from=str(second / 'epoch_1.pth'), epochs=3)
    train(second, monkeypatch, ['best_score_epoch_2.pth'], **options)
    assert (first / 'best_score_epoch_1.pth').exists()
    assert [path.name for path in second.glob('best_*')] == [
        'best_score_epoch_3.pth'
    ]
    log = log_of(second)
    assert log.count('The previous best checkpoint') == 1
    assert f'{second}/best_score_epoch_1.pth is removed' in log


def test_only_the_save_of_the_last_step_must_not_fail(tmp_path, monkeypatch):
    """Of epochs of one step, the last but one may."""
    train(tmp_path / 'a', monkeypatch, ['epoch_3.pth'])
    assert (tmp_path / 'a/epoch_4.pth').is_file()
    with pytest.raises(OSError, match=r'epoch_4.pth could not .*--resume'):
        train(tmp_path / 'b', monkeypatch, ['epoch_4.pth'])
    with pytest.raises(OSError, match=r'There is none yet.*begin anew'):
        train(tmp_path / 'c', monkeypatch, ['epoch_1.pth'], epochs=1)


def files(folder):
    return sorted(path.name for path in folder.glob('*.pth'))


def test_only_failures_in_a_row_stop_a_run(tmp_path, monkeypatch):
    failing, options = ['epoch_1.pth', 'epoch_3.pth'], dict(max_failed_saves=1)
    train(tmp_path / 'a', monkeypatch, failing, **options)
    assert files(tmp_path / 'a') == ['epoch_2.pth', 'epoch_4.pth']
    failing.append('epoch_2.pth')
    with pytest.raises(OSError, match=r'epoch_2\.pth could not be written'):
        train(tmp_path / 'b', monkeypatch, failing, **options)


def test_what_is_not_written_replaces_nothing(tmp_path, monkeypatch):
    train(tmp_path / 'a', monkeypatch, ['epoch_3.pth'], max_keep_ckpts=2)
    assert files(tmp_path / 'a') == ['epoch_2.pth', 'epoch_4.pth']
    with pytest.raises(OSError, match=r'epoch_3\.pth could not be written'):
        train(
            *(tmp_path / 'b', monkeypatch, ['epoch_3.pth']),
            epochs=3,
            max_keep_ckpts=1,
        )
    assert files(tmp_path / 'b') == ['epoch_2.pth']
    last = (tmp_path / 'b/last_checkpoint').read_text()
    assert last.endswith('epoch_2.pth')


@pytest.mark.parametrize('name', ['max_keep_ckpt', 'intervall'])
def test_arguments_are_not_first_read_at_the_first_save(name):
    with pytest.raises(ValueError, match=f'{name}.*did you mean '):
        ExactCheckpointHook(**{name: 3})
