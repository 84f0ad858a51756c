# The demo with a few steps of every run, on parts of the data: it shows that
# everything works; its numbers mean nothing. `python -m demo --quick` runs it.
_base_ = 'study.py'
title = 'UniMoCo on Fashion-MNIST, a reduced run whose numbers mean nothing'

__test = {
    f'{name}_dataloader.dataset.indices': 500 for name in ('val', 'test')
}
__bank = {
    f'{name}_cfg.bank_dataloader.dataset.indices': 1000
    for name in ('val', 'test')
}


def __short(depth):
    """Two epochs; the training images lie so many data sets deep."""
    return {
        'train_cfg.max_epochs': 2,
        f'train_dataloader{depth * ".dataset"}.indices': 1000,
        **__test,
    }


variants = {
    '0 % labels': {**__short(2), **__bank},
    '10 % labels': {**__short(3), **__bank},
    '100 % labels': {**__short(2), **__bank},
    'cross-entropy, 10 % labels': __short(4),
    'cross-entropy, 100 % labels': __short(3),
}

__transfer = {
    'train_cfg.max_epochs': 1,
    'train_dataloader.dataset.indices': 24,
    'val_dataloader.dataset.indices': 8,
}
evaluations = dict(
    knn=dict(overrides={**__test, **__bank}),
    linear=dict(overrides=__short(1)),
    # Some detections, whatever their scores are.
    detection=dict(
        overrides={**__transfer, 'model.test_cfg.rcnn.score_thr': 0.0}
    ),
    segmentation=dict(overrides=__transfer),
)
expectations = []
