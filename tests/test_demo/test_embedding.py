import json

import numpy as np
import pytest
import torch

from demo.configs import pretrain_config
from demo.embedding import embed, extract_features
from demo.stages import backbone_file
from mmunimoco.evaluation.knn import knn_scores


@pytest.mark.parametrize('index', [0, 2])
def test_features_are_those_that_knn_judged(finished_demo, index):
    settings, _ = finished_demo
    summary = json.loads((settings.work_dir / 'summary.json').read_text())
    entry = summary['pretrain'][index]
    checkpoint = backbone_file(settings, entry['label_ratio'])
    cfg = pretrain_config(settings, entry['label_ratio'])
    queries, labels = extract_features(cfg, checkpoint)
    cfg.test_dataloader = cfg.test_cfg.bank_dataloader
    bank, bank_labels = extract_features(cfg, checkpoint)

    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, rtol=1e-5)
    arrays = (queries, bank, bank_labels)
    k = cfg.test_cfg.k
    scores = knn_scores(*map(torch.from_numpy, arrays), 10, (k,), 0.07)[k]
    top1 = 100 * (scores.argmax(1).numpy() == labels).mean()
    assert top1 == pytest.approx(entry['knn_top1'], abs=0.01)


def test_embedding_keeps_groups_apart_and_repeats():
    rng = np.random.default_rng(0)
    centres = np.repeat(100 * np.eye(3, 16), 20, axis=0)
    features = (centres + rng.normal(size=(60, 16))).astype(np.float32)
    places = embed(features, seed=0)
    assert places.shape == (60, 2)
    groups = places.reshape(3, 20, 2)
    middles = groups.mean(axis=1)
    spread = np.abs(groups - middles[:, None]).max()
    gaps = np.linalg.norm(middles - np.roll(middles, 1, axis=0), axis=1)
    assert gaps.min() > spread
    np.testing.assert_array_equal(embed(features, seed=0), places)
