"""A real run of the demo, cut down: interrupted, continued, repeated."""

import io
import json
import os
import re
import shutil
import signal
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from rich.console import Console

from demo import __main__ as program
from demo import settings as demo_settings
from demo.display import Display
from demo.embedding import embed, extract_features
from demo.pool import CONTEXT, StagePool
from demo.report_stages import OUTPUT_FILES
from demo.settings import (
    BACKBONES,
    DETECTION_CONFIG,
    LINEAR_CONFIG,
    PRETRAIN_CONFIGS,
    SEGMENTATION_CONFIG,
    SUPERVISED_CONFIGS,
    DemoSettings,
    backbone_file,
    detection_config,
    linear_config,
    pretrain_config,
    segmentation_config,
)
from demo.training import latest_checkpoint, train
from demo.transfer import predictions_file, task_stage_name
from mmunimoco.engine.checks.work_folder import lock_folder
from mmunimoco.evaluation.knn import knn_scores

EPOCHS = 3
IN_PROCESS = 'num_workers=0, persistent_workers=False'
TINY = {
    LINEAR_CONFIG: f"""
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    head=dict(in_channels=64),
)
train_dataloader = dict(batch_size=50, {IN_PROCESS}, dataset=dict(indices=200))
val_dataloader = dict(dataset=dict(indices=100))
test_dataloader = dict(dataset=dict(indices=100))
train_cfg = dict(max_epochs=1)
""",
    DETECTION_CONFIG: f"""
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64]),
)
train_dataloader = dict({IN_PROCESS})
train_cfg = dict(max_epochs=1)
""",
    SEGMENTATION_CONFIG: f"""
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    decode_head=dict(in_channels=[16, 32]),
)
train_dataloader = dict({IN_PROCESS})
train_cfg = dict(max_epochs=1)
""",
}
for ratio, name in PRETRAIN_CONFIGS.items():
    dataset = 'dict(dataset=dict(indices=200))'
    if ratio == 0.1:  # with RepeatLabeled around it
        dataset = f'dict(dataset={dataset})'
    TINY[name] = f"""
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    neck=dict(in_channels=64, hid_channels=16),
    head=dict(queue_len=64),
)
train_dataloader = dict(batch_size=20, {IN_PROCESS}, dataset={dataset})
train_cfg = dict(max_epochs={EPOCHS}, val_interval=1)
val_cfg = dict(bank_dataloader=dict(dataset=dict(indices=200)))
test_cfg = dict(bank_dataloader=dict(dataset=dict(indices=200)))
val_dataloader = dict(dataset=dict(indices=100))
test_dataloader = dict(dataset=dict(indices=100))
default_hooks = dict(logger=dict(interval=5))
"""


for ratio, name in SUPERVISED_CONFIGS.items():
    dataset = 'indices=200'
    for _ in range(4 if ratio == 0.1 else 3):  # the wrappers around it
        dataset = f'dataset=dict({dataset})'
    TINY[name] = f"""
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    head=dict(in_channels=64),
)
train_dataloader = dict(batch_size=20, {IN_PROCESS}, {dataset})
val_dataloader = dict(dataset=dict(indices=100))
test_dataloader = dict(dataset=dict(indices=100))
train_cfg = dict(max_epochs=1, val_interval=1)
"""


class InterruptingOutput(io.StringIO):
    """Sends SIGINT to this process when a text is written."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def write(self, text: str) -> int:
        if self.text and self.text in text:
            self.text = ''
            os.kill(os.getpid(), signal.SIGINT)
        return super().write(text)


def _run(settings, out=None, **options) -> tuple[int, str]:
    """Exit status and output of the demo, two stages at a time."""
    out = out or io.StringIO()
    console = Console(file=out, width=200)
    # One thread for each process: this one has computed, and OpenMP's
    # threads do not survive a fork.
    with patch('demo.pool.CORES', 2):
        status = program.run_demo(settings, console, jobs=2, **options)
    return status, out.getvalue()


def _records(settings) -> dict[str, dict]:
    return {
        path.parent.name: json.loads(path.read_text())
        for path in settings.stages_dir.glob('*/stage.json')
    }


def _repeated(settings, **options) -> set[str]:
    """Run again; names of the stages that were not skipped."""
    before = _records(settings)
    status, _ = _run(settings, **options)
    assert status == 0
    after = _records(settings)
    return {name for name in after if after[name] != before.get(name)}


def _summary(settings) -> dict:
    return json.loads((settings.work_dir / 'summary.json').read_text())


@pytest.fixture(scope='module')
def tiny(tmp_path_factory) -> DemoSettings:
    folder = tmp_path_factory.mktemp('demo')
    configs = folder / 'configs'
    configs.mkdir()
    for name, text in TINY.items():
        base = demo_settings.ROOT / 'configs' / 'demo' / name
        (configs / name).write_text(f'_base_ = [{str(base)!r}]\n{text}')
    return DemoSettings(
        folder / 'run', config_dir=configs, scenes=dict(train=24, val=8)
    )


@pytest.fixture(scope='module')
def interrupted(tiny) -> tuple[int, str, dict]:
    """Status, output and records of a run that got SIGINT."""
    out = InterruptingOutput(f'0 % labels: epoch 2/{EPOCHS}')
    status, output = _run(tiny, out)
    return status, output, _records(tiny)


@pytest.fixture(scope='module')
def finished(tiny, interrupted) -> tuple[DemoSettings, str]:
    """The interrupted run, continued. Not to be changed by tests."""
    status, output = _run(tiny)
    assert status == 0, output
    return tiny, output


@pytest.fixture
def copied(finished, tmp_path) -> DemoSettings:
    """The finished run, moved to a folder that a test may change."""
    shutil.copytree(finished[0].work_dir, tmp_path / 'run')
    return replace(finished[0], work_dir=tmp_path / 'run')


def test_an_interrupted_run_continues_where_it_stopped(interrupted, finished):
    status, output, records = interrupted
    assert status == 130
    assert 'run the same command again' in output.splitlines()[-1]
    assert 'Traceback' not in output
    assert 'result' not in records['labels-0']
    settings, output = finished
    told = re.findall(rf'Pre-train: 0 % labels: epoch (\d)/{EPOCHS}', output)
    assert told == ['3']
    assert list(settings.work_dir.rglob('*.part*')) == []
    folder = settings.stages_dir / 'labels-0'
    second = torch.load(folder / 'epoch_2.pth', weights_only=False)
    seconds = second['message_hub']['runtime_info']['demo_seconds']
    assert _summary(settings)['pretrain'][0]['seconds'] > seconds > 0


def test_a_run_writes_its_results(finished):
    settings, output = finished
    assert '[15/15] Write the report: done' in output
    assert '100 % labels' in output
    for name in OUTPUT_FILES:
        assert (settings.work_dir / name).stat().st_size > 500, name
    summary = _summary(settings)
    for entry in summary['pretrain']:
        assert entry['epochs'] == EPOCHS
        # 20 labeled images stand for 100: 280 images instead of 200.
        repeated = entry['label_ratio'] == 0.1
        assert entry['steps'] == EPOCHS * (14 if repeated else 10)
        assert Path(entry['checkpoint']).is_file()
        epochs = list(range(1, EPOCHS + 1))
        knn = entry['curves'].pop('knn_top1')
        # Before training, and after each epoch.
        assert [epoch for epoch, _ in knn] == [0, *epochs]
        for curve in entry['curves'].values():
            assert [epoch for epoch, _ in curve] == epochs
        # Random weights are those from which pre-training starts.
        assert knn[0][1] == summary['random_init']['knn_top1']
        # The reported score is that of the last epoch.
        assert knn[-1][1] == entry['knn_top1']
    for entry in summary['supervised']:
        # As many steps with 20 images, ten times an epoch, as with 200.
        assert (entry['epochs'], entry['steps']) == (1, 10)
        assert min(entry['knn_top1'], entry['linear_top1']) > 10
    assert summary['versions']['torch'] == torch.__version__


def test_linear_probe_keeps_the_backbone(finished):
    stages = finished[0].stages_dir
    load = [
        torch.load(stages / path, weights_only=False)['state_dict']
        for path in (
            'labels-10/final.pth',
            'labels-10-linear/epoch_1.pth',
            'labels-0/final.pth',
        )
    ]
    names = [name for name in load[1] if name.startswith('backbone.')]
    assert len(names) > 100
    for name in names:
        assert torch.equal(load[0][name], load[1][name]), name
    key = 'backbone.conv1.weight'
    assert not torch.equal(load[0][key], load[2][key])


def test_embedded_features_are_those_that_knn_judged(finished):
    settings, _ = finished
    entry = _summary(settings)['pretrain'][2]
    checkpoint = backbone_file(settings, entry['label_ratio'])
    cfg = pretrain_config(settings, entry['label_ratio'])
    queries, labels = extract_features(cfg, checkpoint)
    cfg.test_dataloader = cfg.test_cfg.bank_dataloader
    arrays = (queries, *extract_features(cfg, checkpoint))
    k = cfg.test_cfg.k
    scores = knn_scores(*map(torch.from_numpy, arrays), 10, (k,), 0.07)[k]
    top1 = 100 * (scores.argmax(1).numpy() == labels).mean()
    assert top1 == pytest.approx(entry['knn_top1'], abs=0.01)


def test_embedding_separates_groups_and_repeats():
    rng = np.random.default_rng(0)
    centres = np.repeat(100 * np.eye(3, 16), 20, axis=0)
    features = (centres + rng.normal(size=(60, 16))).astype(np.float32)
    places = embed(features, seed=0)
    groups = places.reshape(3, 20, 2)
    middles = groups.mean(axis=1)
    spread = np.abs(groups - middles[:, None]).max()
    gaps = np.linalg.norm(middles - np.roll(middles, 1, axis=0), axis=1)
    assert gaps.min() > spread
    np.testing.assert_array_equal(embed(features, seed=0), places)


def test_finished_stages_are_skipped_also_after_a_move(copied, capfd):
    assert _repeated(copied) == set()
    assert capfd.readouterr() == ('', ''), 'stages print into their logs'
    (copied.work_dir / 'report.html').unlink()
    assert _repeated(copied) == {'report'}
    assert (copied.work_dir / 'report.html').is_file()


def test_a_changed_config_repeats_what_depends_on_it(copied, tmp_path):
    configs = shutil.copytree(copied.config_dir, tmp_path / 'configs')
    with open(configs / LINEAR_CONFIG, 'a') as file:
        file.write('optim_wrapper = dict(optimizer=dict(lr=0.1))\n')
    plan = program.plan_stages(replace(copied, config_dir=configs))
    changed = {stage.name for stage in plan if stage.state == 'changed'}
    probes = {s.name for s in plan if s.name.endswith('-linear')}
    assert changed == probes | {'report'}
    other = program.plan_stages(replace(copied, seed=1))
    assert {stage.state for stage in other} == {'changed'}


def test_training_starts_over_if_no_checkpoint_was_recorded(tiny, tmp_path):
    (tmp_path / 'epoch_1.pth').write_bytes(b'not in last_checkpoint')
    cfg = pretrain_config(tiny, 0.0)
    cfg.train_cfg.max_epochs = 1
    train(cfg, tmp_path, lambda *progress: None)
    assert latest_checkpoint(tmp_path) == tmp_path / 'epoch_1.pth'


def test_fresh_removes_results_and_nothing_else(copied, monkeypatch):
    (copied.work_dir / 'my notes').touch()
    (copied.work_dir / 'transfer.png').touch()

    def stop(settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, 'plan_stages', stop)
    assert _run(copied, fresh=True)[0] == program.INTERRUPTED
    kept = {path.name for path in copied.work_dir.iterdir()}
    assert kept == {'my notes', 'run.lock'}


def test_a_second_demo_in_the_folder_is_refused(copied):
    lock = lock_folder(copied.work_dir)

    def second():
        status, output = _run(copied, fresh=True)
        os._exit(10 * status + ('another --work-dir' in output))

    process = CONTEXT.Process(target=second)
    process.start()
    process.join()
    lock.close()
    assert process.exitcode == 11
    assert (copied.work_dir / 'report.html').is_file()


def test_transfer_continues_a_finished_run(finished):
    """Each task starts from the backbone that it is named after."""
    for name in ('mmdet', 'mmseg', 'mmcv._ext'):
        if find_spec(name) is None:
            pytest.skip(f'needs {name}')
    settings = replace(finished[0], transfer=True)
    plan = {stage.name: stage for stage in program.plan_stages(settings)}
    assert len(plan) == 24
    unfinished = [s.name for s in plan.values() if s.state != 'finished']
    assert len(unfinished) == 10 and plan['report'].state == 'changed'
    ratios = dict(detection=0.1, segmentation=None)
    names = [task_stage_name(task, ratio) for task, ratio in ratios.items()]
    stages = [plan['scenes'], *map(plan.get, names)]
    with patch('demo.pool.CORES', 2):
        StagePool(stages, Display(Console(file=io.StringIO())), 2).run()
    detection, segmentation = (stage.result for stage in stages[1:])
    assert 0 <= detection['bbox_mAP'] <= 100
    # After three steps a few pixels are right.
    assert 0 < segmentation['mIoU'] < 60

    starts = {r: _kernels(backbone_file(settings, r)) for r in BACKBONES}
    for name, ratio in zip(names, ratios.values(), strict=True):
        end = _kernels(settings.stages_dir / name / 'epoch_1.pth')
        distances = {
            other: sum((end[k] - v).norm().item() for k, v in start.items())
            for other, start in starts.items()
        }
        # Three steps change little: the nearest is where it started.
        assert min(distances, key=distances.get) == ratio
        assert distances[ratio] > 0

    path = predictions_file(settings, 'segmentation', None)
    with np.load(path) as file:
        assert file['classes'].shape == (3, 128, 128)
        assert file['classes'].max() <= 10
    with np.load(predictions_file(settings, 'detection', 0.1)) as file:
        count = len(file['scene'])
        assert file['masks'].shape == (count, 128, 128)
        assert file['boxes'].shape == (count, 4)


def _kernels(path):
    weights = torch.load(path, weights_only=False)['state_dict']
    return {
        key: value
        for key, value in weights.items()
        if key.startswith('backbone.') and key.endswith('conv1.weight')
    }


def test_configs_of_a_run_and_of_a_quick_run(tmp_path):
    whole = DemoSettings(tmp_path, seed=5)
    quick = replace(whole, quick=True)
    for ratio in PRETRAIN_CONFIGS:
        cfg, reduced = (pretrain_config(s, ratio) for s in (whole, quick))
        partial = cfg.train_dataloader.dataset
        if partial.type == 'RepeatLabeled':
            partial = partial.dataset
        assert (partial.type, partial.label_ratio) == ('PartialLabels', ratio)
        assert partial.seed == cfg.randomness.seed == 5
        assert 'indices' not in partial.dataset
        assert reduced.train_cfg.max_epochs == 2 < cfg.train_cfg.max_epochs
        dataset = reduced.train_dataloader.dataset
        while 'dataset' in dataset:
            dataset = dataset.dataset
        assert dataset.indices == 1000
    linear = linear_config(quick, Path('a.pth'))
    assert linear.model.backbone.init_cfg.checkpoint == 'a.pth'
    assert linear.train_dataloader.dataset.indices == 1000


def test_transfer_configs(tmp_path):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    whole = DemoSettings(tmp_path, seed=5, transfer=True)
    for build in (detection_config, segmentation_config):
        cfg = build(whole, Path('a.pth'))
        assert cfg.randomness.seed == 5
        assert cfg.model.backbone.init_cfg.checkpoint == 'a.pth'
        for loader in (cfg.train_dataloader, cfg.test_dataloader):
            assert loader.dataset.data_root == str(whole.scenes_dir)
        quick = build(replace(whole, quick=True), Path('a.pth'))
        assert quick.train_cfg.max_epochs == 1 < cfg.train_cfg.max_epochs


def test_missing_packages_are_named_before_anything_starts(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(demo_settings, 'find_spec', lambda name: None)
    work_dir = tmp_path / 'run'
    assert program.main(['--work-dir', str(work_dir)]) == 1
    text = capsys.readouterr().err
    assert re.search('mmdet, mmseg.*compiled ops.*--no-transfer', text)
    assert not work_dir.exists()


@pytest.mark.parametrize('option', ['--seed=-1', '--jobs=0'])
def test_wrong_options_are_named(option, capsys):
    with pytest.raises(SystemExit):
        program.main([option])
    assert f'{option.split("=")[0]} must be' in capsys.readouterr().err
