"""Scripts of docs/benchmarks/cifar10-cpu."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import ttest_ind

from benchmarks.study_tables import difference
from mmunimoco.study.scores import summarise_records

FOLDER = Path(__file__).parents[2] / 'docs/benchmarks/cifar10-cpu'


def test_small_model_without_labels_has_no_cone():
    module = runpy.run_path(str(FOLDER / 'cone_model.py'))
    found = module['run'](0, **module['CASES']['no labels'])
    assert found['left'] == 50
    assert found['cone'] == pytest.approx(0, abs=0.05)
    record = json.loads((FOLDER / 'cone_model.json').read_text())
    assert list(record['cases']) == list(module['CASES'])


def test_subset_has_the_first_images_of_each_class():
    module = runpy.run_path(str(FOLDER / 'make_subset.py'))
    labels = [c for _ in range(3) for c in range(10)]
    images = np.arange(30, dtype=np.uint8)
    found = module['first_of_each_class'](
        SimpleNamespace(targets=labels, data=images), 2
    )
    assert found['indices'].tolist() == list(range(20))
    assert found['images'].tolist() == list(range(20))
    assert found['labels'].tolist() == labels[:20]


def test_difference_of_two_variants():
    scores = dict(ours=[41.0, 43.5, 42.0], other=[44.0, 43.0, 45.5], few=[1.0])
    records = [
        dict(
            variant=name,
            group=name,
            grid={},
            evaluation='kNN',
            status='done',
            protocol={},
            metrics={'knn/top1': dict(last=value, best=value)},
        )
        for name, values in scores.items()
        for value in values
    ]
    summary, metric = summarise_records(records), ('kNN', 'knn/top1')
    p_value = ttest_ind(
        scores['ours'], scores['other'], equal_var=False
    ).pvalue
    found = difference(summary, 'ours', 'other', metric)
    assert found == f'−2.0 (p {p_value:.2f})'
    assert difference(summary, 'few', 'ours', metric) == ''
