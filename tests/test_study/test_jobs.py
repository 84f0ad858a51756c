"""Commands, devices and records of jobs whose processes only seem to run."""

import json
import os
import shutil
from types import SimpleNamespace

import pytest
from exact_runs import ROOT
from rich.console import Console

from mmunimoco.engine.preemption import REQUEUE
from mmunimoco.study import plan as planning
from mmunimoco.study import pool
from mmunimoco.study.command_line import main
from mmunimoco.study.outcome import read_result, record_of, write_commands
from mmunimoco.study.plan import code_version, last_checkpoint, plan_jobs
from mmunimoco.study.progress import duration, estimate
from mmunimoco.study.records import Results
from mmunimoco.study.run import run_study
from mmunimoco.study.spec import read_study

BASE = str(ROOT / 'configs/demo/unimoco_resnet18_fmnist.py')
LINEAR = str(ROOT / 'configs/demo/resnet18_linear_fmnist.py')
RATIO = 'train_dataloader.dataset.label_ratio'
KNN, PROBE = dict(type='knn', k=5), dict(type='cached_linear', l2=0.5)
ENVIRONMENT = dict(versions={}, machine={}, git=None)


def write_study(folder, **fields):
    path = folder / 'study.py'
    content = dict(base=BASE) | fields
    path.write_text(''.join(f'{k} = {v!r}\n' for k, v in content.items()))
    return path


def jobs_of(folder, any_code=False, **fields):
    """Jobs by variant, seed and evaluation."""
    study = read_study(write_study(folder, **fields))
    results = Results(folder / 'work/results.jsonl')
    jobs = plan_jobs(study, folder / 'work', results, any_code)
    return {(j.variant.name, j.seed, j.evaluation): j for j in jobs}


def save_checkpoint(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'a.pth').touch()
    (folder / 'last_checkpoint').write_text(str(folder / 'a.pth'))


@pytest.fixture
def started(monkeypatch):
    """Words and environment of each process; set ``status`` to end them."""
    found = SimpleNamespace(runs=[], status=1)

    def start(command, console, environment):
        found.runs.append((list(map(str, command)), dict(environment)))
        return SimpleNamespace(poll=lambda: found.status)

    monkeypatch.setattr(pool, 'start_process', start)
    return found


def test_an_evaluation_has_seed_and_labels_of_its_pretraining(tmp_path):
    """Its own config has other labels, or none."""
    jobs = jobs_of(
        tmp_path,
        variants=dict(few={RATIO: 0.25}, random=dict(checkpoint='none')),
        seeds=[3, 7],
        evaluations=dict(lin=dict(type='linear', config=LINEAR), knn=KNN),
    )
    for (variant, seed, _), job in jobs.items():
        assert job.cfg.randomness.seed == seed
        record = record_of(job, 1, tmp_path, ENVIRONMENT)
        assert record['seed'] == seed and record['variant'] == variant
        assert record['label_ratio'] == dict(few=0.25).get(variant)


def test_commands_of_one_process_and_of_several(tmp_path):
    weights = tmp_path / 'w.pth'
    weights.touch()
    without = tmp_path / 'without.py'
    none = 'val_cfg = None\nval_dataloader = None\nval_evaluator = None\n'
    without.write_text(f'_base_ = {LINEAR!r}\n{none}')
    jobs = jobs_of(
        tmp_path,
        variants=dict(x=dict(checkpoint='w.pth'), y={'val_dataloader': None}),
        evaluations=dict(
            probe=dict(PROBE, variants=['x'], max_iter=7),
            knn=dict(KNN, variants=['x']),
            lin=dict(type='linear', config=LINEAR, variants=['x']),
            untested=dict(type='linear', config=str(without), variants=['x']),
        ),
    )
    tools = {
        evaluation: [
            [word.rpartition('/')[2] for word in words if 'tools/' in word]
            for words in write_commands(job, 1, None)
        ]
        for (_, _, evaluation), job in jobs.items()
    }
    # What was validated is not tested, nor is a pre-training.
    assert tools == dict(
        probe=[['cached_linear_probe.py']],
        knn=[['test.py']],
        lin=[['train.py']],
        untested=[['train.py'], ['test.py']],
        pretrain=[['train.py']],
    )
    (probe,) = write_commands(jobs['x', 0, 'probe'], 1, None)
    assert '--l2 0.5 --max-iter 7' in ' '.join(probe)
    knn = jobs['x', 0, 'knn']
    assert str(weights) in write_commands(knn, 1, None)[0]
    (words,) = write_commands(knn, 3, None)
    assert '--nproc_per_node=3' in words and words[-2:] == [
        *('--launcher', 'pytorch')
    ]
    (words,) = write_commands(knn, 3, '--mem=1G')
    assert words[:3] == ['srun', '--ntasks=3', '--gres=gpu:3']
    assert words[-2:] == ['--launcher', 'slurm']


def test_devices_and_threads_of_runs_side_by_side(
    tmp_path, started, monkeypatch, capsys
):
    """Of two processes each, but for the probe, which has one."""
    (tmp_path / 'w.pth').touch()
    study = write_study(
        tmp_path,
        variants=dict(x=dict(checkpoint='w.pth')),
        gpus=2,
        evaluations=dict(knn=KNN, probe=PROBE),
    )
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(pool, 'count_cores', lambda: 8)
    command = [str(study), '--work-dir', str(tmp_path / 'work'), '--devices']
    assert main([*command, '3']) == 1
    assert '--devices names only 3' in capsys.readouterr().out
    assert main([*command, '3,4,5,6']) == 1
    (knn, shared), (probe, one) = started.runs
    assert 'torch.distributed.run' in knn
    assert 'torch.distributed.run' not in probe
    assert shared['CUDA_VISIBLE_DEVICES'] == '3,4'
    assert one['CUDA_VISIBLE_DEVICES'] == '5'
    # Two runs at a time share the cores.
    assert shared['OMP_NUM_THREADS'] == one['OMP_NUM_THREADS'] == '4'


def test_a_training_that_failed_is_not_tested(tmp_path, started):
    """Nor drawn: a checkpoint that it has written would give a score."""
    (tmp_path / 'w.pth').touch()
    changes = dict(val_cfg=None, val_dataloader=None, val_evaluator=None)
    linear = dict(type='linear', config=LINEAR, overrides=changes)
    path = write_study(
        tmp_path,
        variants=dict(x=dict(checkpoint='w.pth')),
        evaluations=dict(lin=linear),
    )
    work_dir, drawn = tmp_path / 'work', []
    arguments = (read_study(path), work_dir, Console(quiet=True))
    assert run_study(*arguments, draw=lambda *x: drawn.append(x)) == 1
    (record,) = Results(work_dir / 'results.jsonl').records
    assert record['status'] == 'failed' and record['metrics'] == {}
    assert len(started.runs) == 1 and not drawn


def test_a_run_that_is_preempted_for_ever_fails(tmp_path, started):
    started.status = REQUEUE
    path = write_study(
        tmp_path,
        variants=dict(x=dict(checkpoint='none')),
        evaluations=dict(knn=KNN),
    )
    assert main([str(path), '--work-dir', str(tmp_path / 'work')]) == 1
    assert len(started.runs) == 21


def test_the_best_epoch_of_an_error_is_its_lowest(tmp_path):
    linear = dict(type='linear', config=LINEAR, metric='error')
    linear['lower_is_better'] = True
    jobs = jobs_of(tmp_path, evaluations=dict(lin=linear, probe=PROBE))
    job = jobs['base', 0, 'lin']
    log = job.folder / '1/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    lines = [dict(error=x, step=i) for i, x in enumerate((3, 1, 2), 1)]
    log.write_text('\n'.join(map(json.dumps, lines)))
    assert read_result(job)['metrics'] == dict(
        error=dict(last=2, last_step=3, best=1, best_step=2)
    )
    # A test that was repeated counts last, a pre-training has to save.
    for name, value in (('20250101', 5.0), ('20250102', 6.0)):
        test = job.folder / name / f'{name}.json'
        test.parent.mkdir()
        test.write_text(json.dumps(dict(tested=value)))
    assert read_result(job)['metrics']['tested']['last'] == 6
    probe = jobs['base', 0, 'probe']
    probe.folder.mkdir()
    (probe.folder / 'metrics.json').write_text('{"top1": 60.0}')
    assert read_result(probe)['metrics']['top1']['last'] == 60
    with pytest.raises(ValueError, match='has no checkpoint'):
        read_result(job.needs)
    save_checkpoint(job.needs.folder)
    assert read_result(job.needs)['metrics'] == {}


def test_last_checkpoint_of_a_folder_that_was_copied(tmp_path):
    """Not the one in its old place, which may be of another run."""
    save_checkpoint(tmp_path / 'old')
    shutil.copytree(tmp_path / 'old', tmp_path / 'new')
    assert last_checkpoint(tmp_path / 'new') == tmp_path / 'new/a.pth'
    (tmp_path / 'new/a.pth').unlink()
    assert last_checkpoint(tmp_path / 'new') == tmp_path / 'old/a.pth'
    (tmp_path / 'old/a.pth').unlink()
    assert last_checkpoint(tmp_path / 'new') is None


def test_code_version_follows_the_package_without_the_studies(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(planning, 'PACKAGE', tmp_path)
    (tmp_path / 'study').mkdir()
    found = []
    for name, text in (
        *(('a.py', '1'), ('study/b.py', '2'), ('a.txt', '3')),
        *(('a.py', '4'), ('c.py', '')),
    ):
        (tmp_path / name).write_text(text)
        found.append(code_version.__wrapped__())
    assert found[0] == found[1] == found[2]
    assert len(set(found)) == 3


def test_any_code_goes_on_with_the_newest_unfinished_run(tmp_path):
    folder = jobs_of(tmp_path)['base', 0, 'pretrain'].folder
    start = folder.parent.name.rpartition('-')[0]
    others = [
        folder.parent.with_name(f'{start}-{code}') / folder.name
        for code in ('aaaaaa', 'bbbbbb', 'cccccc')
    ]
    for other, age in zip(others, (2, 0, 1), strict=True):
        other.mkdir(parents=True)
        os.utime(other, (10**9 - age, 10**9 - age))
    assert jobs_of(tmp_path)['base', 0, 'pretrain'].folder == folder
    job = jobs_of(tmp_path, any_code=True)['base', 0, 'pretrain']
    assert job.folder == others[1]


def test_key_follows_the_weights_that_are_evaluated(tmp_path):
    keys = []
    for text in ('a', 'b'):
        (tmp_path / 'w.pth').write_text(text)
        jobs = jobs_of(
            tmp_path,
            variants=dict(
                file=dict(checkpoint='w.pth'),
                url=dict(checkpoint='https://a.b/c.pth'),
                random=dict(checkpoint='none'),
            ),
            evaluations=dict(knn=KNN),
        )
        keys.append([job.key for job in jobs.values()])
    same = [len(set(column)) for column in zip(*keys, strict=True)]
    assert same == [2, 1, 1] and len(set(keys[0])) == 3


def test_report_of_nothing_says_so(tmp_path, capsys):
    variants = dict(x=dict(checkpoint='none'))
    (job,) = jobs_of(
        tmp_path, variants=variants, evaluations=dict(knn=KNN)
    ).values()
    work_dir = tmp_path / 'work'
    command = [str(tmp_path / 'study.py'), '--work-dir', str(work_dir)]
    assert main([*command, '--report']) == 0
    text = capsys.readouterr().out
    assert 'no run of this study has a result yet.\n' in text
    results = Results(work_dir / 'results.jsonl')
    record = record_of(
        job, 1, work_dir, ENVIRONMENT, status='done', metrics={}
    )
    results.append(record | dict(key=f'{job.config_hash}-old', code='old'))
    assert main([*command, '--report']) == 0
    text = capsys.readouterr().out
    assert f'yet. What is in {results.path} is of other settings' in text
    assert not (work_dir / 'report.md').exists()


def test_any_code_counts_after_a_preparation_too(tmp_path, started):
    fields = dict(
        variants=dict(x=dict(checkpoint='none')),
        evaluations=dict(knn=KNN),
        prepare=[dict(command=['touch', 'made'], creates='made')],
    )
    (job,) = jobs_of(tmp_path, **fields).values()
    results = Results(tmp_path / 'work/results.jsonl')
    record = record_of(
        *(job, 1, tmp_path / 'work', ENVIRONMENT),
        **dict(status='done', metrics={'knn/top1': dict(last=1.0, best=1.0)}),
    )
    results.append(record | dict(key=f'{job.config_hash}-old', code='old'))
    command = [str(tmp_path / 'study.py'), '--work-dir']
    command += [str(tmp_path / 'work'), '--any-code']
    assert main(command) == 0
    assert (tmp_path / 'made').is_file() and not started.runs
    # A report of its own shows it as well.
    (tmp_path / 'work/report.md').unlink()
    assert main([*command, '--report']) == 0
    assert '| x | 1.00 (n=1) |' in (tmp_path / 'work/report.md').read_text()


def test_estimate_is_that_of_the_same_variant(tmp_path):
    (job,) = jobs_of(tmp_path).values()
    known = dict(status='done', evaluation='pretrain', steps=10)
    others = [dict(known, variant='x', seconds=100.0)]
    own = [dict(known, variant='base', seconds=10.0)]
    steps = job.steps(1)
    assert estimate(job, others, 1) == 10 * steps
    assert estimate(job, others + own, 1) == steps
    assert estimate(job, [dict(others[0], status='failed')], 1) is None
    texts = [duration(x) for x in (59.6, 3599, 3600 + 62)]
    assert texts == ['1 min 00 s', '59 min 59 s', '1 h 01 min']
