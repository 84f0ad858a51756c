import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import FEATURES, NARROW_RESNET, write_image_folder
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from sklearn.linear_model import LogisticRegression

import mmunimoco  # noqa: F401  registers the loops
from mmunimoco.evaluation.cached_linear_probe import (
    cached_linear_probe,
    fit_linear,
    load_backbone,
    probe_checkpoint,
    standardize,
)

ROOT = Path(__file__).parents[2]


def _features(samples, classes=6, dims=9, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(classes, dims))
    labels = rng.integers(0, classes, samples)
    noise = rng.normal(size=(samples, dims)) * 1.5
    features = torch.from_numpy(centres[labels] + noise)
    return features, torch.from_numpy(labels)


@pytest.mark.parametrize('l2', [1e-3, 0.1])
def test_classifier_equals_scikit_learn(l2):
    features, labels = _features(300)
    classifier = fit_linear(features, labels, 6, l2=l2, max_iter=1000)
    reference = LogisticRegression(
        C=1 / (l2 * len(features)), tol=1e-10, max_iter=5000
    ).fit(features.numpy(), labels.numpy())
    got = classifier(features).softmax(1).detach().numpy()
    expected = reference.predict_proba(features.numpy())
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_probe_counts_right_answers():
    train, train_labels = _features(400)
    test, test_labels = _features(100, seed=1)
    result = cached_linear_probe(train, train_labels, test, test_labels)
    scaled, other = standardize(train, test)
    scores = fit_linear(scaled, train_labels, 6)(other)
    order = scores.argsort(1, descending=True)
    hits = order == test_labels[:, None]
    assert result['top1'] == pytest.approx(hits[:, 0].double().mean() * 100)
    assert result['top5'] == pytest.approx(
        hits[:, :5].any(1).double().mean() * 100
    )
    assert 40 < result['top1'] < result['top5'] <= 100
    fitted = fit_linear(scaled, train_labels, 6)(scaled).argmax(1)
    right = (fitted == train_labels).double().mean() * 100
    assert result['train_top1'] == pytest.approx(right)
    assert (result['train_samples'], result['test_samples']) == (400, 100)
    assert 'not the published' in result['protocol']
    again = cached_linear_probe(train, train_labels, test, test_labels)
    assert again == result


@pytest.mark.parametrize(
    ('max_iter', 'converged'), [(300, True), (20, False), (2, False)]
)
def test_result_says_whether_it_converged(log, max_iter, converged):
    train, labels = _features(400)
    result = cached_linear_probe(
        train, labels, train, labels, max_iter=max_iter
    )
    assert result['converged'] is converged
    # With max_iter=2, the number of evaluations is the limit.
    assert 1 <= result['iterations'] <= max_iter
    assert ('before it converged' in log.text) is not converged


def test_standardize_keeps_constant_features_finite():
    train = torch.cat([torch.randn(50, 3) * 5 + 2, torch.ones(50, 1)], 1)
    scaled, other = standardize(train, train + 1)
    torch.testing.assert_close(scaled[:, :3].mean(0), torch.zeros(3))
    torch.testing.assert_close(
        scaled[:, :3].std(0, unbiased=False), torch.ones(3)
    )
    assert torch.isfinite(other).all()
    assert (scaled[:, 3] == 0).all()
    # By the statistics of the training features.
    shift = 1 / train[:, :3].std(0, unbiased=False)
    torch.testing.assert_close((other - scaled)[:, :3], shift.expand(50, 3))


@pytest.fixture
def config(tmp_path):
    """A kNN config over tiny images, and a checkpoint beside it."""

    def loader(name, seed):
        root = write_image_folder(tmp_path / name, per_class=8, seed=seed)
        return dict(
            batch_size=5,
            num_workers=0,
            dataset=dict(
                type='CustomDataset',
                data_root=str(root),
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='PackInputs'),
                ],
            ),
        )

    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=dict(type='ImageClassifier', backbone=NARROW_RESNET),
            data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3),
            test_dataloader=loader('test', 1),
            test_cfg=dict(
                type='KNNTestLoop', bank_dataloader=loader('train', 0)
            ),
        )
    )
    cfg.dump(str(tmp_path / 'config.py'))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        torch.manual_seed(0)
        backbone = MODELS.build(NARROW_RESNET)
    state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'checkpoint.pth')
    return cfg


def call_tool(monkeypatch, *arguments):
    """Run the tool in this process; return its exit status."""
    tool = str(ROOT / 'tools/benchmarks/cached_linear_probe.py')
    monkeypatch.setattr(sys, 'argv', [tool, *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(tool, run_name='__main__')
    return stop.value.code


CHANGED = 'config.py checkpoint.pth --cfg-options'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ('no.py checkpoint.pth', 'no.py'),
        ('config.py no.pth', 'no.pth'),
        # Before the checkpoint is read.
        ('config.py no.pth --l2 -1', 'l2 must be at least 0'),
        ('config.py no.pth --l2 nan', 'l2 must be at least 0'),
        ('config.py no.pth --max-iter 0', 'max_iter at least 1'),
        (f'{CHANGED} dataloader.batch_size=2', "no field 'dataloader'"),
        (f'{CHANGED} test_dataloader.batchsize=2', 'did you mean batch_size'),
        (f'{CHANGED} model.backbone.depht=18', 'did you mean depth'),
        (f'{CHANGED} test_cfg.type.k=2', '--cfg-options: '),
        (f'{CHANGED} model.backbone.depth=9', 'model: invalid'),
    ],
)
def test_tool_prints_the_problem_in_one_line(
    config, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert call_tool(monkeypatch, *arguments.split()) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith('error: ') and message in last


def test_tool_probes_a_checkpoint(config, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'results' / 'probe.json'
    arguments = ['config.py', 'checkpoint.pth', '--out', 'results/probe.json']
    monkeypatch.chdir(tmp_path)
    assert call_tool(monkeypatch, *arguments) == 0
    result = json.loads(out.read_text())
    assert 'not the published' in capsys.readouterr().out
    assert result['train_samples'] == result['test_samples'] == 24
    assert result['feature_dim'] == FEATURES
    assert result['num_classes'] == 3 and 'top5' not in result
    # The classes differ in colour.
    assert result['top1'] > 60


def test_a_probe_uses_what_it_is_given(config, tmp_path):
    checkpoint = str(tmp_path / 'checkpoint.pth')
    result = probe_checkpoint(config, checkpoint, l2=0.5, max_iter=3)
    assert result['l2'] == 0.5 and result['iterations'] <= 3
    preprocessor = load_backbone(config, checkpoint).data_preprocessor
    assert preprocessor.mean.flatten().tolist() == [120.0] * 3
    assert preprocessor.std.flatten().tolist() == [60.0] * 3


def test_result_is_written_whole_or_not(
    config, tmp_path, monkeypatch, capsys, full_disk
):
    monkeypatch.chdir(tmp_path)
    arguments = ['config.py', 'checkpoint.pth', '--out', 'probe.json']
    assert call_tool(monkeypatch, *arguments) == 1
    assert 'No space left' in capsys.readouterr().err
    assert not list(tmp_path.glob('*probe*'))


def test_unusable_input(config, tmp_path):
    checkpoint = str(tmp_path / 'checkpoint.pth')
    torch.save(dict(state_dict={'neck.a': torch.ones(1)}), tmp_path / 'b.pth')
    message = r"b\.pth starts with .*'backbone\.'.* 'neck\.' \(1 key\)"
    with pytest.raises(ValueError, match=message):
        probe_checkpoint(config, str(tmp_path / 'b.pth'))
    weights = torch.load(checkpoint, weights_only=True)
    weights['state_dict']['backbone.conv1.weight'][0] = float('nan')
    torch.save(weights, tmp_path / 'nan.pth')
    message = '^test_cfg.bank_dataloader: the features of 24 images are inf'
    with pytest.raises(ValueError, match=message):
        probe_checkpoint(config, str(tmp_path / 'nan.pth'))
    test = config.test_dataloader.dataset
    other = write_image_folder(tmp_path / 'other', classes=2)
    (other / 'class_1').rename(other / 'class_2')
    right, test.data_root = test.data_root, str(other)
    with pytest.raises(ValueError, match="class 1 is 'class_1' in test_cfg.b"):
        probe_checkpoint(config, checkpoint)
    test.data_root = right
    bank = config.test_cfg.bank_dataloader
    bank.dataset.with_label = False
    with pytest.raises(ValueError, match='no sample has a label'):
        probe_checkpoint(config, checkpoint)
    config.test_cfg = dict()
    with pytest.raises(ValueError, match='test_cfg.bank_dataloader'):
        probe_checkpoint(config, checkpoint)
