"""Options of the demo, and what its study expects."""

import re

import pytest

from demo import __main__ as program
from mmunimoco.study.expectations import judge
from mmunimoco.study.scores import summarise_records
from mmunimoco.study.spec import read_study

RANDOM, FULL = 'random weights', '100 % labels'
KNN = {
    RANDOM: 70.0,
    '0 % labels': 75.0,
    '10 % labels': 78.0,
    FULL: 82.0,
}
# Box AP, mask AP and mIoU.
SCENES = {
    RANDOM: (0.2, 0.18, 40.0),
    '0 % labels': (0.22, 0.19, 42.0),
    '10 % labels': (0.23, 0.205, 44.0),
    FULL: (0.25, 0.21, 45.0),
}


@pytest.mark.parametrize(
    ('knn', 'scenes', 'failed'),
    [
        ({}, {}, []),
        ({RANDOM: 75.0}, {}, [0]),
        ({FULL: 79.9}, {}, [1]),
        ({'10 % labels': 75.0}, {}, [2]),
        ({'10 % labels': 82.0}, {}, [3]),
        # One pre-training no better than random weights is enough.
        ({}, {'10 % labels': (0.2, 0.205, 44.0)}, [4]),
        ({}, {FULL: (0.25, 0.179, 39.0)}, [5, 6]),
    ],
)
def test_expectations_of_the_demo(knn, scenes, failed):
    study = read_study(program.ROOT / 'demo/study.py')
    found = []
    for name in KNN:
        top1 = (KNN | knn)[name]
        box, mask, iou = (SCENES | scenes)[name]
        for evaluation, values in dict(
            knn={'knn/top1': top1},
            detection={'coco/bbox_mAP': box, 'coco/segm_mAP': mask},
            segmentation={'mIoU': iou},
        ).items():
            metrics = {k: dict(last=v, best=v) for k, v in values.items()}
            found.append(
                dict(
                    status='done',
                    variant=name,
                    group=name,
                    grid={},
                    evaluation=evaluation,
                    protocol=study.evaluations[evaluation],
                    metrics=metrics,
                )
            )
    outcomes = judge(summarise_records(found), study.expectations)
    assert [o.holds for o in outcomes] == [i not in failed for i in range(7)]


def test_without_transfer():
    study = program.demo_study(seed=5, transfer=False)
    assert list(study.evaluations) == ['knn', 'linear'] and not study.prepare
    assert study.seeds == (5,) and len(study.expectations) == 4


def test_missing_packages_are_named_before_anything_starts(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(program, 'find_spec', lambda name: None)
    work_dir = tmp_path / 'run'
    assert program.main(['--work-dir', str(work_dir)]) == 1
    text = ' '.join(capsys.readouterr().out.split())
    assert re.search('mmdet, mmseg.*compiled ops.*--no-transfer', text)
    assert not work_dir.exists()


@pytest.mark.parametrize('option', ['--seed=-1', '--jobs=0'])
def test_wrong_options_are_named(option, capsys):
    with pytest.raises(SystemExit):
        program.main([option])
    assert f'{option.split("=")[0]} must be' in capsys.readouterr().err
