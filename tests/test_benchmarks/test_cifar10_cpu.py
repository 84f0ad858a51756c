"""Scripts of docs/benchmarks/cifar10-cpu."""

import json
import runpy
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import ttest_ind
from small_unimoco import data_samples, draw_batches, unimoco_config
from torch.nn import functional

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


def test_reference_within_the_batch_is_the_published_loss(monkeypatch):
    """Khosla et al., arXiv 2004.11362, equation 2."""
    monkeypatch.syspath_prepend(FOLDER)
    module = import_module('in_batch_supcon')  # once, as it registers a class
    config = unimoco_config(head=dict(loss=dict(type='SupConLoss')))
    config.pop('type')
    model = module.InBatchSupCon(**config)
    views, _ = next(draw_batches(1, n=6))
    samples = data_samples(torch.tensor([0, 1, 2, 0, 1, 2]))
    model.eval()
    loss = model.loss(views, samples)['loss'].item()
    with torch.no_grad():
        features = model.neck(model.backbone(torch.cat(views)))[0].double()
    features = functional.normalize(features, dim=1)
    scores = (features @ features.T / model.head.temperature).numpy()
    labels, terms = [0, 1, 2] * 4, []
    for i in range(12):
        others = [j for j in range(12) if j != i]
        log_sum = np.log(np.exp(scores[i, others]).sum())
        same = [j for j in others if labels[j] == labels[i]]
        terms.append(np.mean([log_sum - scores[i, j] for j in same]))
    assert loss == pytest.approx(np.mean(terms), rel=1e-4)
