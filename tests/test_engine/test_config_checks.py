"""What a config asks for against what data and machine have."""

from types import SimpleNamespace

import pytest

from mmunimoco.engine.config_checks import fit_topk


@pytest.mark.parametrize(
    ('topk', 'classes', 'expected'),
    [
        ((1, 5), 2, (1,)),
        ((1, 2, 5), 4, (1, 2)),
        ((5,), 3, (1,)),
        ((1, 5), 5, (1, 5)),
        ((1, 5), None, (1, 5)),  # unknown
        (5, 2, 5),  # a multi-label threshold, another meaning
    ],
)
def test_top_k_follows_the_number_of_classes(topk, classes, expected):
    metric = SimpleNamespace(topk=topk)
    fit_topk([metric, object(), None], classes, 'val_evaluator')
    assert metric.topk == expected
