"""Scripts of docs/benchmarks/cifar10-cpu."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

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
