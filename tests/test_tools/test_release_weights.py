"""Weights of a study beside the scores of these weights."""

import hashlib
import json
import runpy
from pathlib import Path

import pytest
import torch
import yaml

load_file = pytest.importorskip('safetensors.torch').load_file
TOOL = Path(__file__).parents[2] / 'tools/model_converters/release_weights.py'


def record(folder, kind='pretrain', status='done', **metrics):
    """A line of results.jsonl."""
    return dict(
        key=folder,
        status=status,
        variant='v',
        seed=0,
        evaluation=Path(folder).name,
        protocol=dict(type=kind),
        metrics={name: dict(last=value) for name, value in metrics.items()},
        folder=folder,
    )


def write_run(work_dir, name):
    """The folder of a pre-training; its record."""
    folder = work_dir / name / 'pretrain'
    (folder / '1/vis_data').mkdir(parents=True)
    (folder / '1/vis_data/scalars.json').write_text('{"loss": 1.0}\n')
    torch.save({'state_dict': {'backbone.x': torch.ones(2)}}, folder / 'e.pth')
    (folder / 'last_checkpoint').write_text(str(folder / 'e.pth'))
    return record(f'{name}/pretrain')


def scores_of(work_dir, records, capsys):
    """Metrics in the entry that the tool prints."""
    lines = ''.join(f'{json.dumps(x)}\n' for x in records)
    (work_dir / 'results.jsonl').write_text(lines)
    main = runpy.run_path(str(TOOL))['main']
    assert main([str(work_dir), 'v', str(work_dir / 'v.py')]) == 0
    (entry,) = yaml.safe_load(capsys.readouterr().out)
    return entry['Results'][0]['Metrics']


def test_scores_of_earlier_weights_are_left_out(tmp_path, capsys):
    """As after a repeated pre-training whose evaluation has failed."""
    old, new = (write_run(tmp_path, name) for name in ('old', 'new'))
    knn = {'knn/top1': 90.0}
    records = [old, record('old/kNN', 'knn', **knn), new]
    records += [record('new/kNN', 'knn', 'failed')]
    assert scores_of(tmp_path, records, capsys) == {}
    knn = {'knn/top1': 80.0}
    records += [record('new/kNN', 'knn', **knn)]
    assert scores_of(tmp_path, records, capsys) == {'kNN top-1': 80.0}


def test_files_of_the_weights(tmp_path, capsys):
    """In half precision, named by their sum, with the log of all starts."""
    run = write_run(tmp_path, 'a')
    folder = tmp_path / 'a/pretrain'
    (folder / '2/vis_data').mkdir(parents=True)
    (folder / '2/vis_data/scalars.json').write_text('{"loss": 0.5}\n')
    state = {'backbone.x': torch.tensor([0.1]), 'backbone.n': torch.tensor(3)}
    torch.save({'state_dict': {**state, 'neck.x': 1}}, folder / 'e.pth')
    weights = tmp_path / 'weights'
    weights.mkdir()
    (weights / 'v-01234567.safetensors').touch()
    (weights / 'v-long-01234567.safetensors').touch()
    # Of another seed and another method.
    knn = record('a/kNN', 'knn', **{'knn/top1': 10.0})
    others = [dict(knn, seed=1), dict(knn, variant='w')]
    assert scores_of(tmp_path, [run, *others], capsys) == {}
    other, file, log = sorted(
        weights.iterdir(), key=lambda x: ('long' not in x.name, -len(x.name))
    )
    assert other.name == 'v-long-01234567.safetensors'
    digest = hashlib.md5(file.read_bytes()).hexdigest()
    assert file.name == f'v-{digest[:8]}.safetensors'
    assert log.read_text() == '{"loss": 1.0}\n{"loss": 0.5}\n'
    released = load_file(file)
    assert released.keys() == state.keys()
    assert released['backbone.n'].dtype == torch.int64
    assert torch.equal(released['backbone.x'], state['backbone.x'].half())


def test_the_two_linear_probes_have_a_name_each(tmp_path, capsys):
    published, cached = {'accuracy/top1': 70.0}, {'top1': 60.0}
    records = [
        write_run(tmp_path, 'a'),
        record('a/linear', 'linear', **published),
        record('a/quick', 'cached_linear', **cached),
    ]
    assert scores_of(tmp_path, records, capsys) == {
        'Linear top-1': 70.0,
        'Linear top-1 on cached features': 60.0,
    }
