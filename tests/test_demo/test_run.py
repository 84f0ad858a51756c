"""A quick run of the demo with two variants, and what it leaves."""

import io
import re
import runpy
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from rich.console import Console
from study_runs import prepare_forks

from demo import __main__ as program
from demo.embedding import extract_features
from demo.make_scenes import write_scenes
from mmunimoco.evaluation.knn import knn_neighbours, vote
from mmunimoco.study.plan import last_checkpoint, plan_jobs
from mmunimoco.study.records import Results
from mmunimoco.utils.safe_load import read_checkpoint

ROOT = Path(__file__).parents[2]
TRANSFER = all(find_spec(name) for name in ('mmdet', 'mmseg', 'mmcv._ext'))
needs_transfer = pytest.mark.skipif(
    not TRANSFER, reason='needs mmdet, mmseg and compiled ops of mmcv'
)
RANDOM, FULL = 'random weights', '100 % labels'


def run(study, work_dir) -> tuple[int, str]:
    """Exit status and output of the demo, two runs at a time."""
    out = io.StringIO()
    console = Console(file=out, width=200)
    with pytest.MonkeyPatch.context() as patch:
        prepare_forks(patch)
        status = program.run_demo(study, work_dir, console, 2)
    return status, out.getvalue()


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Work folder, output and runs by variant and evaluation."""
    work_dir = tmp_path_factory.mktemp('demo')
    study = program.demo_study(quick=True, seed=3, transfer=TRANSFER)
    kept = tuple(v for v in study.variants if v.name in (RANDOM, FULL))
    study = replace(study, variants=kept)
    # Instead of the 300 scenes that the study would prepare.
    write_scenes(work_dir / 'scenes/seed-3', dict(train=24, val=8), seed=3)
    status, output = run(study, work_dir)
    assert status == 0, output
    jobs = plan_jobs(study, work_dir, Results(work_dir / 'results.jsonl'))
    runs = {(job.variant.name, job.evaluation): job for job in jobs}
    return study, work_dir, output, runs


def test_results_and_what_is_next(finished):
    _, work_dir, output, runs = finished
    records = Results(work_dir / 'results.jsonl').records
    assert len(records) == len(runs) == (9 if TRANSFER else 5)
    assert {record['status'] for record in records} == {'done'}
    assert {record['seed'] for record in records} == {3}
    scores = {(r['variant'], r['evaluation']): r['metrics'] for r in records}
    curve = scores[FULL, 'pretrain']['knn/top1']
    # The score is that of the last epoch.
    assert scores[FULL, 'knn']['knn/top1']['last'] == curve['last'] > 20
    assert re.search(rf'{FULL}\W+{curve["last"]:.2f}', output)
    assert 'Loads checkpoint' not in output
    (line,) = [x for x in output.splitlines() if 'tools/test.py' in x]
    assert Path(line.split()[-1]).is_file()
    assert '--seed 4 --work-dir' in output


def test_page_has_tables_and_pictures(finished):
    _, work_dir, _, _ = finished
    text = (work_dir / 'report.md').read_text()
    assert 'numbers mean nothing' in text and 'Mask R-CNN' in text
    figures = re.findall(r'\]\((figures/.*?)\)', text)
    names = ['embedding', 'predictions'][: 2 if TRANSFER else 1]
    assert figures == [f'figures/{name}.png' for name in names]
    assert 't-SNE of the test images' in text
    page = (work_dir / 'report.html').read_text()
    assert page.count('data:image/png;base64,') == len(names)
    # Nothing is loaded from elsewhere.
    assert not re.search(
        r'(src|href)="https?:|url\(|@import|<link rel=.s', page
    )


def test_nothing_is_done_again(finished):
    study, work_dir, _, _ = finished
    kept = [work_dir / 'results.jsonl', *work_dir.glob('figures/*')]
    before = [path.stat().st_mtime_ns for path in kept]
    status, output = run(study, work_dir)
    assert status == 0 and re.search(r'^0 of \d+ runs are left', output, re.M)
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_embedded_features_are_those_that_knn_judged(finished):
    _, work_dir, _, runs = finished
    job = runs[FULL, 'knn']
    queries, labels = extract_features(job.cfg, job.checkpoint())
    bank = job.cfg.copy()
    bank.test_dataloader = bank.test_cfg.bank_dataloader
    arrays = (queries, *extract_features(bank, job.checkpoint()))
    k = job.cfg.test_cfg.k
    nearest = knn_neighbours(*map(torch.from_numpy, arrays), k)
    scores = vote(*nearest, 10, 0.07)
    top1 = 100 * (scores.argmax(1).numpy() == labels).mean()
    (record,) = [
        r
        for r in Results(work_dir / 'results.jsonl').records
        if r['key'] == job.key
    ]
    assert top1 == pytest.approx(record['metrics']['knn/top1']['last'])


def kernels(job) -> dict[str, torch.Tensor]:
    state = read_checkpoint(str(last_checkpoint(job.folder)))['state_dict']
    return {
        key: value
        for key, value in state.items()
        if key.startswith('backbone.') and 'conv' in key
    }


def distance(first, second) -> float:
    assert first.keys() == second.keys() and len(first) > 10
    return sum((first[key] - second[key]).norm().item() for key in first)


def test_evaluations_start_from_their_backbone(finished):
    _, _, _, runs = finished
    start = kernels(runs[FULL, 'pretrain'])
    assert distance(start, kernels(runs[FULL, 'linear'])) == 0
    assert distance(start, kernels(runs[RANDOM, 'linear'])) > 1
    if TRANSFER:
        for task in ('detection', 'segmentation'):
            near = distance(start, kernels(runs[FULL, task]))
            far = distance(start, kernels(runs[RANDOM, task]))
            # Three steps change little.
            assert 0 < near < 0.5 * far, task


@needs_transfer
def test_scenes_lie_in_the_work_folder(finished):
    _, work_dir, _, runs = finished
    for task in ('detection', 'segmentation'):
        cfg = runs[FULL, task].cfg
        assert cfg.randomness.seed == 3
        for part in ('train', 'val', 'test'):
            root = cfg[f'{part}_dataloader'].dataset.data_root
            assert root == f'{work_dir}/scenes/seed-3'


def test_weights_for_release(finished, tmp_path, capsys):
    _, work_dir, _, runs = finished
    tool = ROOT / 'tools/model_converters/release_weights.py'
    main = runpy.run_path(str(tool))['main']
    arguments = [str(work_dir), FULL, str(tmp_path / 'full.py')]
    assert main(arguments) == 1
    assert 'has no finished run' in capsys.readouterr().err
    assert main([*arguments, '--seed', '3']) == 0
    names = [path.suffix for path in (tmp_path / 'weights').iterdir()]
    assert sorted(names) == ['.json', '.safetensors']
    assert 'kNN top-1:' in capsys.readouterr().out
