"""Normalization recorded in checkpoints and configs."""

import pytest

from mmunimoco.utils.normalization import (
    Normalization,
    normalization_of_checkpoint,
)

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
VALUES = f'mean={MEAN}, std={list(STD)}'


@pytest.mark.parametrize(
    'meta',
    [
        dict(normalization=dict(mean=MEAN, std=STD, to_rgb=True), cfg='x = 1'),
        dict(cfg=f'data_preprocessor = dict({VALUES}, bgr_to_rgb=True)'),
        dict(cfg=f'model = dict(data_preprocessor=dict({VALUES}, to_rgb=1))'),
    ],
)
def test_read_from_checkpoints(meta):
    expected = Normalization(MEAN, STD, True)
    assert normalization_of_checkpoint(dict(meta=meta)) == expected


@pytest.mark.parametrize(
    'checkpoint',
    [
        dict(),
        dict(meta=None),
        dict(meta=dict(cfg=None)),
        dict(meta=dict(cfg='no = (python')),
        dict(meta=dict(cfg='data_preprocessor = 3')),
        dict(meta=dict(normalization='unknown')),
        dict(meta=dict(normalization=dict(mean=3))),
    ],
)
def test_unknown_in_other_checkpoints(checkpoint):
    assert normalization_of_checkpoint(checkpoint) is None


def test_arrays_are_rgb_and_files_bgr():
    """Of a network that CIFAR's arrays trained, files have to be reversed."""
    text = (
        'data_preprocessor = dict(mean=[3, 2, 1], std=[1, 1, 1], to_rgb={})\n'
        "train_dataloader = dict(dataset=dict(type='X', dataset=dict("
        "pipeline=[dict(type='{}'), dict(type='PackInputs')])))"
    )
    for to_rgb, step, reversed_first in (
        (False, 'IndexAsImage', True),
        (False, 'LoadTwoCrops', False),
        (True, 'LoadTwoCrops', True),
    ):
        meta = dict(cfg=text.format(to_rgb, step))
        found = normalization_of_checkpoint(dict(meta=meta))
        assert found.to_rgb == reversed_first
