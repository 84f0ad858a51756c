import json
import subprocess
import sys
from pathlib import Path

import pytest

from demo.seeds import collect_seeds

ROOT = Path(__file__).parents[2]
RATIOS = (0.0, 0.1, 1.0)


def _run(seed, shift=0.0, **changes):
    pretrain = [
        dict(
            label_ratio=ratio,
            knn_top1=75 + 8 * ratio + shift,
            linear_top1=80 + 5 * ratio,
            epochs=40,
            seconds=100.0,
            config=f'{ratio}.py',
        )
        for ratio in RATIOS
    ]
    summary = dict(
        pretrain=pretrain,
        random_init=dict(knn_top1=70.0, linear_top1=72.0),
        total_seconds=500.0,
        seed=seed,
        quick=False,
        linear_config='linear.py',
        versions=dict(torch='2'),
        machine=dict(cores=2),
    )
    return {**summary, **changes}


def test_mean_std_and_runs():
    both = collect_seeds([_run(4, shift=2.0), _run(1)])
    assert both['mean']['100 % labels'] == dict(knn_top1=84.0, linear_top1=85)
    assert both['std']['100 % labels'] == dict(knn_top1=1.41, linear_top1=0)
    assert [run['seed'] for run in both['runs']] == [1, 4]
    assert [run['as_expected'] for run in both['runs']] == [True, True]
    assert both['runs'][1]['scores']['0 % labels']['knn_top1'] == 77.0
    assert both['versions'] == dict(torch='2')


def test_transfer_is_collected_too():
    detection = [
        dict(init=init, bbox_mAP=20.0 + i, segm_mAP=10.0 + i)
        for i, init in enumerate(['random', 'labels-0', 'labels-10', 'all'])
    ]
    segmentation = [dict(init=e['init'], mIoU=30.0) for e in detection]
    run = _run(0, detection=detection, segmentation=segmentation)
    both = collect_seeds([run, {**run, 'seed': 1}])
    assert both['mean']['100 % labels'] == dict(
        knn_top1=83, linear_top1=85, bbox_mAP=23, segm_mAP=13, mIoU=30
    )
    assert both['mean']['none (random weights)']['bbox_mAP'] == 20
    assert both['epochs'] == [40, 40, 40]
    with pytest.raises(ValueError, match='only some of the runs'):
        collect_seeds([run, _run(1)])


def test_run_that_missed_an_expectation_is_told():
    run = _run(0)
    run['pretrain'][2]['knn_top1'] = 79.0
    (found,) = collect_seeds([run])['runs']
    assert not found['as_expected']


@pytest.mark.parametrize(
    ('runs', 'message'),
    [
        ([], 'no summary'),
        ([_run(1), _run(1)], 'twice'),
        ([_run(1), _run(2, quick=True)], 'reduced'),
        ([_run(1), _run(2, versions=dict(torch='1'))], 'differ in versions'),
    ],
)
def test_what_does_not_compare_is_refused(runs, message):
    with pytest.raises(ValueError, match=message):
        collect_seeds(runs)


def test_command_line(tmp_path):
    paths = []
    for seed in (0, 1):
        paths.append(tmp_path / f'{seed}.json')
        paths[-1].write_text(json.dumps(_run(seed)))
    out = tmp_path / 'all.json'
    subprocess.run(
        [sys.executable, ROOT / 'tools/misc/collect_demo_seeds.py', *paths]
        + ['--out', out],
        check=True,
        env=dict(PYTHONPATH=str(ROOT)),
    )
    assert json.loads(out.read_text()) == collect_seeds([_run(0), _run(1)])
