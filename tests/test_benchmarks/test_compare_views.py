"""``python -m benchmarks.compare_views`` on a few tiny images."""

import json
from statistics import stdev

import numpy as np
import pytest

from benchmarks import compare_views
from benchmarks.compare_views import Size, build_config, summarize


@pytest.fixture
def data(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {}
    for split, count in (('train', 40), ('test', 10)):
        shape = (count, 32, 32, 3)
        arrays[f'{split}_images'] = generator.integers(0, 256, shape, 'uint8')
        arrays[f'{split}_labels'] = np.arange(count) % 10
    np.savez(tmp_path / 'data.npz', **arrays)
    return tmp_path / 'data.npz'


def test_only_the_views_differ(data):
    published, fast = (
        build_config(views, data, 0.1, 3, Size()).to_dict()
        for views in ('published', 'fast')
    )
    assert published['data_preprocessor'] != fast['data_preprocessor']
    for cfg in (published, fast):
        assert cfg['train_dataloader']['dataset']['label_ratio'] == 0.1
        assert 'CIFAR10' not in str(cfg)
        for name in ('model', 'optim_wrapper', 'train_cfg', 'randomness'):
            assert cfg[name] == fast[name]


def test_command(data, tmp_path, capsys):
    """Both kinds of views are scored; what is done is not repeated."""
    out = tmp_path / 'views.json'
    command = ['--data', data, '--out', out, '--seeds', 0, '--labels', 1]
    command += ['--epochs', 1, '--work-dir', tmp_path, '--batch', 16]
    command += ['--test-images', 10]
    command = [str(word) for word in command]
    assert compare_views.main([*command, '--images', '40']) == 0
    text = out.read_text()
    result = json.loads(text)
    assert [r['views'] for r in result['runs']] == ['published', 'fast']
    assert all(0 <= r['knn_top1'] <= 100 for r in result['runs'])
    assert result['summary'] == summarize(result['runs'])
    assert compare_views.main([*command, '--images', '40']) == 0
    assert out.read_text() == text
    with pytest.raises(SystemExit):
        compare_views.main([*command, '--images', '20'])
    assert 'name another --out' in capsys.readouterr().err


def test_summary_takes_complete_pairs():
    scores = dict(published=[20.0, 24.0, 22.0], fast=[21.0, 22.0, 26.0])
    runs = [
        dict(views=views, labels=0.0, seed=seed, knn_top1=value)
        for views, values in scores.items()
        for seed, value in enumerate(values)
    ]
    alone = dict(views='fast', labels=0.0, seed=7, knn_top1=90.0)
    (row,) = summarize([*runs, alone])
    assert row['n'] == 3 and row['published']['mean'] == 22.0
    assert row['difference'] == dict(
        mean=1.0, std=pytest.approx(stdev([1, -2, 4]), abs=0.006)
    )
