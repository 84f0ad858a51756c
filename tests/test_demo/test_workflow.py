"""Skipping, repeating and forgetting stages, by real (tiny) runs."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from demo_helpers import run_captured

from demo.configs import linear_config, pretrain_config
from demo.outputs import OUTPUT_FILES
from demo.settings import PRETRAIN_CONFIGS, DemoSettings
from demo.stages import training_stages


@pytest.fixture
def copy_of_demo(finished_demo, tmp_path) -> DemoSettings:
    """The finished demo, moved to a folder that a test may change."""
    settings, _ = finished_demo
    shutil.copytree(settings.work_dir, tmp_path / 'demo')
    return replace(settings, work_dir=tmp_path / 'demo')


def _times(settings: DemoSettings) -> dict[str, int]:
    return {
        path.parent.name: path.stat().st_mtime_ns
        for path in settings.stages_dir.glob('*/stage.json')
    }


def test_run_writes_everything_it_promises(finished_demo):
    settings, output = finished_demo
    for name in OUTPUT_FILES:
        assert (settings.work_dir / name).stat().st_size > 500, name
    assert '[2/13]' in output and 'epoch 2/2' in output
    assert '100 % labels' in output
    summary = json.loads((settings.work_dir / 'summary.json').read_text())
    assert [e['epochs'] for e in summary['pretrain']] == [2, 2, 2]
    for entry in [*summary['pretrain'], summary['random_init']]:
        assert 0 <= entry['knn_top1'] <= 100
        assert 0 <= entry['linear_top1'] <= 100
    for entry in summary['pretrain']:
        assert entry['seconds'] > 0
        assert [e for e, _ in entry['curves']['loss']] == [1, 2]
        assert [e for e, _ in entry['curves']['knn_top1']] == [1, 2]
        # The reported score is that of the last epoch.
        assert entry['curves']['knn_top1'][-1][1] == entry['knn_top1']
    assert summary['versions']['torch'] == torch.__version__


def test_nothing_is_printed_but_progress_and_results(finished_demo, capfd):
    settings, _ = finished_demo
    run_captured(settings)
    assert capfd.readouterr() == ('', '')


def test_every_backbone_is_another_one(finished_demo):
    settings, _ = finished_demo
    states = [
        torch.load(path, weights_only=False)['state_dict']
        for path in settings.stages_dir.glob('*/final.pth')
    ]
    assert len(states) == 4
    weights = [s['backbone.conv1.weight'] for s in states]
    for index, weight in enumerate(weights):
        for other in weights[:index]:
            assert not torch.equal(weight, other)


def test_linear_probe_leaves_the_backbone_as_pretrained(finished_demo):
    settings, _ = finished_demo
    stages = settings.stages_dir
    before = torch.load(stages / 'labels-10/final.pth', weights_only=False)
    after = torch.load(
        stages / 'labels-10-linear/epoch_1.pth', weights_only=False
    )
    names = [n for n in after['state_dict'] if n.startswith('backbone.')]
    assert len(names) > 100
    for name in names:
        expected = before['state_dict'][name]
        assert torch.equal(after['state_dict'][name], expected), name


def test_second_run_skips_everything_also_after_a_move(copy_of_demo):
    before = _times(copy_of_demo)
    status, output = run_captured(copy_of_demo)
    assert status == 0
    assert _times(copy_of_demo) == before
    assert output.startswith('13 of 13 stages are finished.')
    assert '100 % labels' in output


def test_lost_report_is_written_again_and_nothing_else(copy_of_demo):
    before = _times(copy_of_demo)
    (copy_of_demo.work_dir / 'report.html').unlink()
    run_captured(copy_of_demo)
    after = _times(copy_of_demo)
    assert (copy_of_demo.work_dir / 'report.html').is_file()
    assert {n for n in before if before[n] != after[n]} == {'report'}


def test_changed_probe_repeats_probes_and_what_follows(copy_of_demo, tmp_path):
    configs = shutil.copytree(copy_of_demo.config_dir, tmp_path / 'configs')
    with open(configs / 'resnet18_linear_fmnist.py', 'a') as file:
        file.write('optim_wrapper = dict(optimizer=dict(lr=0.1))\n')
    changed = replace(copy_of_demo, config_dir=configs)
    before = _times(changed)
    _, output = run_captured(changed)
    after = _times(changed)
    repeated = {n for n in before if before[n] != after[n]}
    probes = {n for n in before if n.endswith('-linear')}
    assert repeated == probes | {'report'}
    assert 'Linear probe of random weights: settings changed' in output


def test_fresh_removes_results_and_only_those(copy_of_demo, monkeypatch):
    (copy_of_demo.work_dir / 'my notes').touch()
    monkeypatch.setattr('demo.workflow.plan_stages', _stop)
    run_captured(copy_of_demo, fresh=True)
    left = [path.name for path in copy_of_demo.work_dir.iterdir()]
    assert left == ['my notes']


def _stop(settings):
    raise KeyboardInterrupt


def test_seed_length_and_labels_tell_stages_apart(copy_of_demo):
    def digests(settings):
        return [s.store.fingerprint for s in training_stages(settings)]

    own = digests(copy_of_demo)
    assert len(set(own)) == len(own) == 8
    other = digests(replace(copy_of_demo, seed=1))
    quick = digests(replace(copy_of_demo, quick=True))
    assert not set(own) & set(other)
    assert not set(own) & set(quick)


def test_negative_seed_is_refused(tmp_path):
    with pytest.raises(ValueError, match='--seed'):
        DemoSettings(tmp_path, seed=-1)


def test_missing_config_is_named(tmp_path):
    settings = DemoSettings(tmp_path, config_dir=tmp_path / 'nothing')
    with pytest.raises(FileNotFoundError, match='nothing'):
        pretrain_config(settings, 1.0)


def _partial_labels(cfg):
    dataset = cfg.train_dataloader.dataset
    if dataset.type == 'RepeatLabeled':
        dataset = dataset.dataset
    assert dataset.type == 'PartialLabels'
    return dataset


@pytest.mark.parametrize('label_ratio', PRETRAIN_CONFIGS)
def test_shipped_configs_and_their_reduced_form(tmp_path, label_ratio):
    whole = DemoSettings(tmp_path, seed=5)
    cfg = pretrain_config(whole, label_ratio)
    partial = _partial_labels(cfg)
    assert partial.label_ratio == label_ratio
    assert partial.seed == cfg.randomness.seed == 5
    assert partial.dataset.get('indices') is None

    quick = replace(whole, quick=True)
    reduced = pretrain_config(quick, label_ratio)
    assert reduced.train_cfg.max_epochs < cfg.train_cfg.max_epochs
    assert _partial_labels(reduced).dataset.indices == 1000
    assert reduced.model == cfg.model

    linear = linear_config(quick, tmp_path / 'a.pth')
    assert linear.model.backbone.init_cfg.checkpoint == str(tmp_path / 'a.pth')
    assert linear.train_dataloader.dataset.indices == 1000
