"""Checkpoints as other projects write them, with random weights."""

import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.testing import assert_close


class RunsCode:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def randomize(model, seed=0):
    """Give biases and BN random values too, so that no mix-up is unseen."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith('num_batches_tracked'):
            value.fill_(7)
        elif value.ndim == 1 and value.is_floating_point():
            positive = not name.endswith(('bias', 'running_mean'))
            noise = torch.rand(value.shape, generator=generator)
            value.copy_(noise + 0.5 if positive else noise - 0.5)
    model.eval()  # returns None for a backbone of mmpretrain
    return model


def assert_same_features(features, expected):
    """To 1e-5, and neither dead nor overflown."""
    assert torch.isfinite(expected).all() and expected.std() > 1e-3
    assert_close(features, expected, rtol=1e-5, atol=1e-5)


def moco_encoder(depth, version, dim, seed):
    """An encoder of MoCo: torchvision's ResNet, v2 with one layer more."""
    torch.manual_seed(seed)
    model = getattr(torchvision.models, f'resnet{depth}')(num_classes=dim)
    if version == 2:
        width = model.fc.in_features
        first = nn.Linear(width, width)
        model.fc = nn.Sequential(first, nn.ReLU(), model.fc)
    return randomize(model, seed)


def moco_checkpoint(
    depth=18, version=2, dim=16, keys=12, labels=None, prefix='module.'
):
    """A checkpoint of MoCo, or with labels of UniMoCo, as published.

    Returns:
        tuple: The checkpoint, the query encoder and the key encoder.
    """
    query = moco_encoder(depth, version, dim, seed=0)
    key = moco_encoder(depth, version, dim, seed=1)
    state = {}
    for name, encoder in (('encoder_q', query), ('encoder_k', key)):
        for k, value in encoder.state_dict().items():
            state[f'{prefix}{name}.{k}'] = value
    queue = torch.randn(dim, keys, generator=torch.Generator().manual_seed(2))
    state[f'{prefix}queue'] = functional.normalize(queue, dim=0)
    state[f'{prefix}queue_ptr'] = torch.tensor([4])
    if labels is not None:
        labels = torch.as_tensor(labels, dtype=torch.int32)
        state[f'{prefix}label_queue'] = labels
    checkpoint = dict(
        epoch=200,
        arch=f'resnet{depth}',
        state_dict=state,
        optimizer=dict(state={}, param_groups=[dict(lr=0.03, params=[0])]),
    )
    return checkpoint, query, key


def unimoco_config(depth=18, version=2, dim=16, keys=12):
    """Config of the UniMoCo that :func:`moco_checkpoint` is for."""
    width = 512 if depth < 50 else 2048
    neck = dict(
        type='MoCoV2Neck',
        in_channels=width,
        hid_channels=width,
        out_channels=dim,
        with_avg_pool=True,
    )
    if version == 1:
        neck = dict(
            type='LinearNeck',
            in_channels=width,
            out_channels=dim,
            gap_dim=2,
            norm_cfg=None,
        )
    return dict(
        type='UniMoCo',
        momentum=0.01,
        backbone=dict(type='ResNet', depth=depth, norm_cfg=dict(type='BN')),
        neck=neck,
        head=dict(type='UniMoCoHead', feat_dim=dim, queue_len=keys),
    )
