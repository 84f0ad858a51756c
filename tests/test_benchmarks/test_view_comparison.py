"""The comparison of published and fast views, on a few tiny images."""

import json
import runpy
import sys
from pathlib import Path
from statistics import mean, stdev

import pytest
from image_folders import write_image_folder

from benchmarks.view_comparison import Size, build_config, compare, summarize

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    for split, count in (('train', 8), ('test', 2)):
        write_image_folder(tmp_path / 'images' / split, 5, count)
    return tmp_path / 'images'


def test_the_views_are_all_that_differs(folder):
    published, fast = (
        build_config(views, folder, 0.1, 3, Size()).to_dict()
        for views in ('published', 'fast')
    )
    for name in ('view_pipeline', 'train_pipeline', 'data_preprocessor'):
        assert published.pop(name) != fast.pop(name)
    assert fast.pop('custom_hooks')[:-1] == published.pop('custom_hooks')
    for cfg in (published, fast):
        del cfg['train_dataloader']['dataset']['dataset']['pipeline']
    assert published == fast
    data = fast['train_dataloader']['dataset']
    assert data['label_ratio'] == 0.1 and fast['randomness'] == dict(seed=3)
    assert data['dataset']['folder'] == str(folder / 'train')
    assert 'CIFAR10' not in str(fast)


def test_command(folder, tmp_path, monkeypatch, capsys):
    """Runs of either kind are scored, written down and not repeated."""
    tool = ROOT / 'tools/benchmarks/compare_views.py'
    out = tmp_path / 'views.json'

    def run(*arguments):
        command = ['--folder', folder, '--out', out, '--seeds', '0']
        command += ['--labels', '1', '--epochs', '1', '--work-dir', tmp_path]
        command += ['--batch', '16', *arguments]
        monkeypatch.setattr(sys, 'argv', [str(tool), *map(str, command)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(tool), run_name='__main__')
        return end.value.code

    sizes = ('--images', '40', '--test-images', '10')
    assert run(*sizes) == 0
    text = out.read_text()
    result = json.loads(text)
    assert [r['views'] for r in result['runs']] == ['published', 'fast']
    assert all(0 <= r['knn_top1'] <= 100 for r in result['runs'])
    assert result['summary'] == summarize(result['runs'])
    assert result['size']['images'] == 40 and result['versions']['torch']
    assert run(*sizes) == 0 and out.read_text() == text
    assert run('--images', '20', '--test-images', '10') == 1
    assert 'give another --out' in capsys.readouterr().err
    out.unlink()
    assert run('--images', '45', '--test-images', '10') == 1
    assert 'has 8 images, 9 are needed' in capsys.readouterr().err
    assert run('--images', '41', '--test-images', '10') == 1
    assert 'cannot be taken evenly' in capsys.readouterr().err


def test_order_puts_pairs_first(monkeypatch, tmp_path):
    module = 'benchmarks.view_comparison'
    monkeypatch.setattr(f'{module}.build_config', lambda *args: args)
    monkeypatch.setattr(f'{module}.train', lambda *args: dict(knn_top1=1.0))
    done = [dict(views='published', labels=0.0, seed=4, knn_top1=9.0)]
    saved = []
    compare(tmp_path, [0.0, 1.0], [4], Size(), tmp_path, done, saved.append)
    order = [(run['views'], run['labels']) for run in done]
    assert order == [
        ('published', 0.0),
        ('fast', 0.0),
        ('published', 1.0),
        ('fast', 1.0),
    ]
    assert len(saved) == 3 and done[0]['knn_top1'] == 9.0


def test_summary_takes_whole_pairs():
    scores = dict(published=[20.0, 24.0, 22.0], fast=[21.0, 22.0, 26.0])
    runs = [
        dict(views=views, labels=0.0, seed=seed, knn_top1=value)
        for views, values in scores.items()
        for seed, value in enumerate(values)
    ]
    alone = dict(views='fast', labels=0.0, seed=7, knn_top1=90.0)
    (row,) = summarize([*runs, alone])
    assert row['labels'] == 0.0 and row['n'] == 3
    for views, values in scores.items():
        assert row[views]['mean'] == pytest.approx(mean(values), abs=0.006)
        assert row[views]['std'] == pytest.approx(stdev(values), abs=0.006)
    assert row['difference']['mean'] == pytest.approx(1.0)
    assert row['difference']['std'] == pytest.approx(stdev([1, -2, 4]))
    assert summarize([alone]) == [dict(labels=0.0, n=0)]
