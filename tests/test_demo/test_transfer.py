"""The transfer part of the demo, by a real (tiny) run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_helpers import run_captured, write_tiny_configs
from PIL import Image

from demo import transfer_configs
from demo.outputs import TRANSFER_FILES
from demo.settings import DETECTION_CONFIG, SEGMENTATION_CONFIG, DemoSettings
from demo.stages import training_stages
from demo.transfer import (
    DETECTION,
    INITS,
    SEGMENTATION,
    predictions_file,
    task_stage_name,
    transfer_stages,
)
from demo.transfer_configs import (
    detection_config,
    require_transfer,
    scenes_dir,
    segmentation_config,
)

SHIPPED = Path(__file__).parents[2] / 'configs' / 'demo'
NAMES = ['random', 'labels-0', 'labels-10', 'labels-100']
TINY_DETECTION = """
_base_ = [{base!r}]
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64]),
)
train_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs=1)
"""
TINY_SEGMENTATION = """
_base_ = [{base!r}]
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    decode_head=dict(in_channels=[16, 32]),
)
train_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs=1)
"""


@pytest.fixture(scope='module')
def finished(finished_demo, tmp_path_factory) -> tuple[DemoSettings, str]:
    """The finished demo, gone on with transfer. Not to be changed."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    folder = tmp_path_factory.mktemp('transfer')
    without, _ = finished_demo
    shutil.copytree(without.work_dir, folder / 'demo')
    configs = write_tiny_configs(folder / 'configs')
    for name, text in (
        (DETECTION_CONFIG, TINY_DETECTION),
        (SEGMENTATION_CONFIG, TINY_SEGMENTATION),
    ):
        (configs / name).write_text(text.format(base=str(SHIPPED / name)))
    settings = replace(
        without,
        work_dir=folder / 'demo',
        transfer=True,
        scenes=dict(train=24, val=8),
        config_dir=configs,
    )
    status, output = run_captured(settings)
    assert status == 0
    return settings, output


@pytest.fixture
def copy_of_demo(finished, tmp_path) -> DemoSettings:
    settings, _ = finished
    shutil.copytree(settings.work_dir, tmp_path / 'demo')
    return replace(settings, work_dir=tmp_path / 'demo')


def _times(settings: DemoSettings) -> dict[str, int]:
    return {
        path.parent.name: path.stat().st_mtime_ns
        for path in settings.stages_dir.glob('*/stage.json')
    }


def test_summary_table_and_pictures(finished):
    settings, output = finished
    summary = json.loads((settings.work_dir / 'summary.json').read_text())
    for task, keys in (
        ('detection', {'init', 'bbox_mAP', 'segm_mAP'}),
        ('segmentation', {'init', 'mIoU'}),
    ):
        assert [entry['init'] for entry in summary[task]] == NAMES
        for entry in summary[task]:
            assert set(entry) == keys
            assert all(0 <= entry[key] <= 100 for key in keys - {'init'})
    # Three steps name some pixels right, and surely not all of them.
    assert 0 < min(e['mIoU'] for e in summary['segmentation']) < 60
    assert summary['transfer']['unit'] == 'percent'
    assert summary['transfer']['scenes'] == dict(train=24, val=8)
    assert summary['versions'].keys() >= {'mmdet', 'mmseg'}

    # Transfer does not repeat what was done without it.
    assert output.startswith('12 of 22 stages are finished.')
    assert '[22/22] Write the report: done' in output
    assert 'Segmentation from 10 % of the labels: epoch 1/1' in output
    assert 'Box AP' in output and 'mIoU' in output
    for name in TRANSFER_FILES:
        picture = Image.open(settings.work_dir / name)
        assert min(picture.size) > 300, name
        assert f']({name})' in (settings.work_dir / 'report.md').read_text()
    html = (settings.work_dir / 'report.html').read_text()
    assert html.count('src="data:image/png;base64,') == 4


@pytest.mark.parametrize('task', [DETECTION, SEGMENTATION])
@pytest.mark.parametrize('ratio', INITS)
def test_every_run_starts_from_its_own_backbone(finished, task, ratio):
    settings, _ = finished
    folder = settings.stages_dir / task_stage_name(task, ratio)
    (checkpoint,) = folder.glob('epoch_*.pth')
    end = torch.load(checkpoint, weights_only=False)['state_dict']
    distances = {}
    for other in INITS:
        start = torch.load(
            settings.stages_dir / _backbone(other), weights_only=False
        )['state_dict']
        distances[other] = sum(
            (end[key] - value).norm().item()
            for key, value in start.items()
            if key.startswith('backbone.') and key.endswith('conv1.weight')
        )
    # Three steps change little: the nearest is where it came from.
    assert min(distances, key=distances.get) == ratio
    assert distances[ratio] > 0


def _backbone(ratio):
    name = 'random-init' if ratio is None else f'labels-{100 * ratio:.0f}'
    return f'{name}/final.pth'


def test_predictions_are_of_the_first_scenes(finished):
    settings, _ = finished
    with np.load(predictions_file(settings, SEGMENTATION, 1.0)) as file:
        assert file['classes'].shape == (3, 128, 128)
        assert file['classes'].max() <= 10
    with np.load(predictions_file(settings, DETECTION, 1.0)) as file:
        count = len(file['scene'])
        assert file['masks'].shape == (count, 128, 128)
        assert file['boxes'].shape == (count, 4)
        assert set(file['scene']) <= {0, 1, 2}


def test_second_run_skips_everything_also_after_a_move(copy_of_demo):
    before = _times(copy_of_demo)
    status, output = run_captured(copy_of_demo)
    assert status == 0
    assert _times(copy_of_demo) == before
    assert output.startswith('22 of 22 stages are finished.')


def test_lost_scenes_are_composed_again_alone(copy_of_demo):
    before = _times(copy_of_demo)
    path = scenes_dir(copy_of_demo) / 'annotations/instances_val.json'
    content = path.read_bytes()
    path.unlink()
    run_captured(copy_of_demo)
    after = _times(copy_of_demo)
    assert path.read_bytes() == content
    assert {n for n in before if before[n] != after[n]} == {'scenes'}


def test_without_transfer_nothing_but_the_report_is_done_again(copy_of_demo):
    before = _times(copy_of_demo)
    without = replace(copy_of_demo, transfer=False)
    status, output = run_captured(without)
    assert status == 0
    after = _times(without)
    assert {n for n in before if before[n] != after[n]} == {'report'}
    assert 'Box AP' not in output
    summary = json.loads((without.work_dir / 'summary.json').read_text())
    assert 'detection' not in summary
    assert '## Transfer' not in (without.work_dir / 'report.md').read_text()


def test_fresh_removes_the_pictures_too(copy_of_demo, monkeypatch):
    def stop(settings):
        raise KeyboardInterrupt

    (copy_of_demo.work_dir / 'notes').touch()
    monkeypatch.setattr('demo.workflow.plan_stages', stop)
    run_captured(copy_of_demo, fresh=True)
    left = [path.name for path in copy_of_demo.work_dir.iterdir()]
    assert left == ['notes']


def test_fingerprints_tell_backbones_and_seeds_apart(finished):
    settings, _ = finished

    def digests(settings):
        stages = transfer_stages(settings, training_stages(settings))
        return [stage.store.fingerprint for stage in stages]

    own = digests(settings)
    assert len(set(own)) == len(own) == 9
    assert not set(own) & set(digests(replace(settings, seed=1)))
    assert digests(replace(settings, transfer=False)) == []


def test_shipped_configs_and_their_reduced_form(tmp_path):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    checkpoint = tmp_path / 'a.pth'
    whole = DemoSettings(tmp_path, seed=5, transfer=True)
    for build in (detection_config, segmentation_config):
        cfg = build(whole, checkpoint)
        assert cfg.randomness.seed == 5
        assert cfg.model.backbone.init_cfg.checkpoint == str(checkpoint)
        assert cfg.train_cfg.max_epochs > 1
        for loader in (cfg.train_dataloader, cfg.test_dataloader):
            assert loader.dataset.data_root == str(scenes_dir(whole))
        quick = build(replace(whole, quick=True), checkpoint)
        assert quick.train_cfg.max_epochs == 1
        assert quick.model == cfg.model


def test_missing_packages_are_named_before_anything_starts(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(transfer_configs, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match='mmdet, mmseg.*--no-transfer'):
        require_transfer()
    settings = DemoSettings(tmp_path / 'demo', transfer=True)
    with pytest.raises(ImportError, match='compiled ops'):
        run_captured(settings)
    assert not settings.work_dir.exists()
