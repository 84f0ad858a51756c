"""Studies that run, are killed, resume, fail, and what they record."""

import json
import os
import re
import shutil
import time

import numpy as np
import pytest
from study_runs import (
    RANDOM,
    SUPCON,
    UNICON,
    Forked,
    run_study,
    start_study,
    study_text,
    write_study,
)

from benchmarks.checkpoint_differences import differences
from mmunimoco.engine.preemption import REQUEUE
from mmunimoco.study.plan import code_version
from mmunimoco.study.records import Results
from mmunimoco.study.run import remove_results
from mmunimoco.utils.config_text import config_literal
from mmunimoco.utils.safe_load import read_checkpoint


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Study file and work folder of two variants with two seeds."""
    folder = tmp_path_factory.mktemp('study')
    study = write_study(folder, study_text(UNICON, SUPCON))
    work_dir = folder / 'work'
    with pytest.MonkeyPatch.context() as patch:
        status = run_study(
            patch, study, '--work-dir', work_dir, '--devices', '3,5'
        )
    assert status == 0
    assert set(Forked.devices) == {'3', '5'}
    return study, work_dir


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.exitcode is None and time.monotonic() < deadline
        time.sleep(0.02)


def records_of(work_dir):
    lines = (work_dir / 'results.jsonl').read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_record_of_each_run(finished):
    study, work_dir = finished
    records = records_of(work_dir)
    runs = {(r['variant'], r['seed'], r['evaluation']) for r in records}
    assert len(records) == len(runs) == 8
    for record in records:
        assert record['status'] == 'done' and record['seconds'] > 0
        assert record['code'] == code_version()
        assert record['versions']['torch'] and record['machine']['cores']
        assert (work_dir / record['log']).is_file()
        assert (work_dir / record['config']).is_file()
        (score,) = [
            value
            for name, value in record['metrics'].items()
            if name == 'knn/top1'
        ]
        if record['evaluation'] == 'pretrain':
            assert record['steps'] == 14
            curve = record['curves']['knn/top1']
            best = max(curve, key=lambda point: point[1])
            assert (score['last_step'], score['last']) == tuple(curve[-1])
            assert (score['best_step'], score['best']) == tuple(best)
        else:
            assert record['protocol']['temperature'] == 0.1
            text = (work_dir / record['config']).read_text()
            test_cfg = config_literal(text, 'test_cfg')
            assert (test_cfg['k'], test_cfg['temperature']) == (5, 0.1)
    seeds = {
        seed: {
            r['metrics']['knn/top1']['last']
            for r in records
            if r['seed'] == seed and r['evaluation'] == 'knn'
        }
        for seed in (0, 1)
    }
    assert seeds[0] != seeds[1]


def test_report_agrees_with_numpy(finished):
    _, work_dir = finished
    scores = {}
    for record in records_of(work_dir):
        if record['evaluation'] == 'knn':
            scores.setdefault(record['variant'], []).append(
                record['metrics']['knn/top1']['last']
            )
    markdown = (work_dir / 'report.md').read_text()
    table = (work_dir / 'results.csv').read_text()
    for name, values in scores.items():
        mean, std = np.mean(values), np.std(values, ddof=1)
        assert f'| {name} | {mean:.2f} ± {std:.2f} (n=2) |' in markdown
        (row,) = re.findall(f'^{name},.*$', table, re.MULTILINE)
        assert np.isclose(float(row.split(',')[5]), mean)
        assert np.isclose(float(row.split(',')[6]), std)
    assert '81.2 ± 0.3 †' in markdown and 'not run here: Table 3' in markdown
    assert '(n=2)*' not in markdown  # two seeds show no winner
    assert '82.' not in (work_dir / 'results.tex').read_text().split('81.2')[1]


def test_finished_study_runs_nothing_and_plans_with_its_pace(
    finished, monkeypatch, capsys
):
    study, work_dir = finished
    before = (work_dir / 'results.jsonl').read_bytes()
    assert run_study(monkeypatch, study, '--work-dir', work_dir) == 0
    assert (work_dir / 'results.jsonl').read_bytes() == before
    assert '0 of 8 runs are left' in capsys.readouterr().out
    # A seed more: its cost is that of the others.
    more = study.with_name('more.py')
    more.write_text(study_text(UNICON, SUPCON, seeds=(0, 1, 2)))
    command = (more, '--work-dir', work_dir, '--dry-run')
    assert run_study(monkeypatch, *command) == 0
    text = ' '.join(capsys.readouterr().out.split())
    assert '4 of 12 runs are left, 28 steps, about' in text
    assert 'unknown' not in text
    assert (work_dir / 'results.jsonl').read_bytes() == before


def test_changed_config_or_code_is_another_run(finished, monkeypatch, capsys):
    study, work_dir = finished
    plan = (study, '--work-dir', work_dir, '--dry-run')
    monkeypatch.setattr('mmunimoco.study.plan.code_version', lambda: 'f' * 12)
    run_study(monkeypatch, *plan)
    assert '8 of 8 runs are left' in capsys.readouterr().out
    run_study(monkeypatch, *plan, '--any-code')
    assert '0 of 8 runs are left' in capsys.readouterr().out
    changed = study.with_name('changed.py')
    other = "supcon={'model.momentum': 0.02}"
    changed.write_text(study_text(UNICON, other))
    run_study(monkeypatch, changed, *plan[1:], '--any-code')
    assert '4 of 8 runs are left' in capsys.readouterr().out


def test_kill_and_resume_at_the_exact_step(tmp_path, finished, monkeypatch):
    """SIGKILL to the study alone: its run saves, and is resumed from there."""
    linear = "evaluations = dict(lin=dict(type='linear', config='linear.py'))"
    text = study_text(UNICON, seeds=(0,), more=linear + '\npublished = []\n')
    study = write_study(tmp_path, text)
    _, undisturbed = finished
    work_dir = tmp_path / 'work'
    process = start_study(study, '--work-dir', work_dir)
    pattern = 'runs/*/*/*/last_checkpoint'
    wait_for(lambda: list(work_dir.glob(pattern)), process)
    process.kill()
    process.join()
    (found,) = work_dir.glob(pattern)
    assert not (work_dir / 'results.jsonl').exists()
    # Cut off within a line by the crash.
    (work_dir / 'results.jsonl').write_text('{"key": "cut o')
    folder = found.parent
    clock = folder.with_name(f'{folder.name}.clock.json')
    clock.write_text('{"seconds": 1000.0}')
    # The same command, at once: it waits for the run that still saves.
    command = (study, '--work-dir', work_dir)
    assert run_study(monkeypatch, *command) == 0
    logs = sorted(folder.glob('*/*.log'))
    assert len(logs) == 2
    (start,) = re.findall(r'resumed.*iter: (\d+)', logs[1].read_text())
    assert 2 <= int(start) < 14
    same = undisturbed / folder.relative_to(work_dir) / 'iter_14.pth'
    states = (read_checkpoint(str(p)) for p in (same, folder / 'iter_14.pth'))
    assert list(differences(*states)) == []
    # Not in the folder, where a run that starts removes unfinished files.
    assert clock.is_file() and not list(folder.glob('*clock*'))
    train, probe = Results(work_dir / 'results.jsonl').records
    assert train['seconds'] > 1000 > probe['seconds']
    assert train['status'] == probe['status'] == 'done'
    # It started from these weights, and was tested after its two epochs.
    weights = config_literal(
        (work_dir / probe['config']).read_text(),
        *('model', 'backbone', 'init_cfg', 'checkpoint'),
    )
    assert weights == str(folder / 'iter_14.pth')
    tests = list((work_dir / probe['folder']).glob('*/[0-9]*.json'))
    (metrics,) = [json.loads(path.read_text()) for path in tests]
    score = probe['metrics']['accuracy/top1']
    assert score['last'] == metrics['accuracy/top1'] > 0


def test_preempted_run_goes_on(tmp_path, finished, monkeypatch):
    """A run that gets SIGTERM from outside is started again, to resume."""
    text = study_text(UNICON, seeds=(0,), more='evaluations = {}\n')
    study = write_study(tmp_path, f'{text}published = []\n')
    _, undisturbed = finished
    work_dir, statuses = tmp_path / 'work', []

    class Preempted(Forked):
        def poll(self):
            saved = list(work_dir.glob('runs/*/*/pretrain/last_checkpoint'))
            if saved and not statuses:
                statuses.append(None)
                self.terminate()
            status = super().poll()
            if status is not None:
                statuses.append(status)
            return status

    command = (study, '--work-dir', work_dir)
    assert run_study(monkeypatch, *command, kind=Preempted) == 0
    assert statuses == [None, REQUEUE, 0]
    (record,) = records_of(work_dir)
    last = f'{record["folder"]}/iter_14.pth'
    states = (read_checkpoint(str(x / last)) for x in (undisturbed, work_dir))
    assert list(differences(*states)) == []
    # Without evaluations the page shows the validations.
    score = record['metrics']['knn/top1']['last']
    assert f'| unicon | {score:.2f} (n=1) |' in (
        (work_dir / 'report.md').read_text()
    )


def test_failed_run_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    field = 'train_dataloader.dataset.dataset.dataset.split'
    broken = f"broken={{'{field}': 'no'}}"
    bad = "dict(type='knn', metric='knn/top7', variants=['random'])"
    text = study_text(broken, RANDOM, seeds=(0,))
    study = write_study(tmp_path, f"{text}evaluations['bad'] = {bad}\n")
    command = (study, '--work-dir', tmp_path / 'work')
    assert run_study(monkeypatch, *command) == 1
    broken, random, bad = records_of(tmp_path / 'work')
    assert random['status'] == 'done'
    assert broken['status'] == bad['status'] == 'failed'
    assert any("'no'" in line for line in broken['tail'])
    (line,) = bad['tail']
    assert 'no metric knn/top7; there are knn/top1' in line
    printed = capsys.readouterr().out
    assert '3 of 4 runs have no result' in printed
    report = (tmp_path / 'work/report.md').read_text()
    assert '## Failed runs' in report and 'exit status 1' in report


FAKE_SRUN = """#!/bin/sh
echo "$@" >> "$SRUN_LOG"
while case $1 in --*) true;; *) false;; esac; do shift; done
exec "$@"
"""


def test_slurm_and_sigterm(tmp_path, monkeypatch, capsys):
    """Each run starts by srun; SIGTERM ends the study, which goes on later."""
    study = write_study(tmp_path, study_text(RANDOM, seeds=(0,)))
    (tmp_path / 'srun').write_text(FAKE_SRUN)
    (tmp_path / 'srun').chmod(0o755)
    log = tmp_path / 'srun.log'
    process = start_study(
        *(study, '--work-dir', tmp_path / 'work', '--launcher', 'slurm'),
        '--slurm-args=--partition=p --mem=1G',
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
        SRUN_LOG=str(log),
    )
    wait_for(log.exists, process)
    # Another command for the same study is refused.
    assert run_study(monkeypatch, study, '--work-dir', tmp_path / 'work') == 1
    assert 'choose another work folder' in capsys.readouterr().out
    process.terminate()
    process.join(60)
    assert process.exitcode == 130
    assert not (tmp_path / 'work/results.jsonl').exists()
    assert run_study(monkeypatch, study, '--work-dir', tmp_path / 'work') == 0
    (line,) = log.read_text().splitlines()
    assert '--ntasks=1' in line and '--partition=p --mem=1G' in line
    (record,) = records_of(tmp_path / 'work')
    assert record['status'] == 'done' and record['label_ratio'] is None


def test_compare_runs_of_mmengine(finished, tmp_path, monkeypatch):
    _, work_dir = finished
    folders = {
        (r['variant'], r['seed']): (work_dir / r['folder'], r['metrics'])
        for r in records_of(work_dir)
        if r['evaluation'] == 'pretrain'
    }
    runs = [f'{name}={f}' for (name, _), (f, _) in folders.items()]
    assert (
        run_study(monkeypatch, 'compare', *runs, '--work-dir', tmp_path) == 0
    )
    text = (tmp_path / 'report.md').read_text()
    for name in ('unicon', 'supcon'):
        values = [
            metrics['knn/top1']['last']
            for (variant, _), (_, metrics) in folders.items()
            if variant == name
        ]
        mean, std = np.mean(values), np.std(values, ddof=1)
        assert f'| {name} | {mean:.2f} ± {std:.2f} (n=2) |' in text
    assert (tmp_path / 'plots/curves.svg').is_file()
    links = re.findall(r'\[log\]\((.*?)\)', text)
    assert len(links) == 4 and all((tmp_path / x).is_file() for x in links)
    # The same folder, or seed, twice; folders of studies have one name.
    name, _, first = runs[0].partition('=')
    shutil.copytree(first, tmp_path / 'copy')
    for other in (f'other={first}', f'{name}={tmp_path / "copy"}'):
        assert run_study(monkeypatch, 'compare', runs[0], other) == 1
    unnamed = [folder for folder, _ in folders.values()]
    assert run_study(monkeypatch, 'compare', *unnamed) == 1
    with pytest.raises(SystemExit):
        run_study(monkeypatch, 'compare')
    assert run_study(monkeypatch, 'compare', tmp_path / 'absent') == 1


PREPARE = """
import sys
prepare = [dict(
    command=[sys.executable, '-c', {code!r}, '{{work_dir}}/{{seed}}'],
    creates='{{work_dir}}/{{seed}}')]
"""


def test_prepared_once_for_each_seed(tmp_path, monkeypatch, capsys):
    """A command that fails stops the study; the next one goes on."""
    fail = 'import sys; print("no", "space"); sys.exit(3)'
    evaluations = 'evaluations = {}\npublished = []\n'
    text = study_text(RANDOM, more=evaluations)
    study = write_study(tmp_path, text + PREPARE.format(code=fail))
    command = (study, '--work-dir', tmp_path / 'work')
    assert run_study(monkeypatch, *command) == 1
    printed = capsys.readouterr().out
    assert 'of prepare ended with exit status 3 and did not create' in printed
    assert printed.rstrip().endswith('no space')
    write = 'import sys; open(sys.argv[1], "a").write("made")'
    study.write_text(text + PREPARE.format(code=write))
    assert run_study(monkeypatch, *command) == 0
    assert run_study(monkeypatch, *command) == 0
    made = {p.name: p.read_text() for p in (tmp_path / 'work').glob('[01]')}
    assert made == {'0': 'made', '1': 'made'}
    assert capsys.readouterr().out.count('Preparing') == 2


def test_prepared_list_of_labels_counts_from_the_first_run_on(
    tmp_path, monkeypatch
):
    """The key has its content, which is not there when the study starts."""
    dataset = 'train_dataloader.dataset.dataset'
    changes = f"{{'{dataset}.label_list': '{{work_dir}}/0', "
    changes += f"'{dataset}.label_ratio': None}}"
    random = f"random=dict({changes}, checkpoint='none')"
    code = 'import sys; open(sys.argv[1], "w").write("a.png")'
    text = study_text(random, seeds=(0,)) + PREPARE.format(code=code)
    command = (write_study(tmp_path, text), '--work-dir', tmp_path / 'work')
    for _ in range(2):
        assert run_study(monkeypatch, *command) == 0
        assert len(records_of(tmp_path / 'work')) == 1
    (tmp_path / 'work/0').write_text('b.png')
    assert run_study(monkeypatch, *command) == 0
    assert len(records_of(tmp_path / 'work')) == 2


def test_fresh_removes_results_and_nothing_else(tmp_path, monkeypatch):
    text = study_text(RANDOM, more='evaluations = {}\npublished = []\n')
    study = write_study(tmp_path, text)
    work_dir = tmp_path / 'work'
    for name in ('runs/a/b', 'plots/c', 'results.csv', 'figures/mine'):
        path = work_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Results(work_dir / 'results.jsonl').append(dict(key='a', status='done'))
    command = (study, '--work-dir', work_dir, '--fresh')
    assert run_study(monkeypatch, *command) == 0
    kept = {path.name for path in work_dir.iterdir()}
    assert kept == {'figures', 'run.lock'}
    remove_results(work_dir, drawn=True)
    assert {path.name for path in work_dir.iterdir()} == {'run.lock'}
