"""A UniMoCo of a narrow ResNet-18, and batches for it."""

import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

import mmunimoco  # noqa: F401

QUEUE_LEN, DIM = 32, 16


def build_unimoco(norm=None, **head):
    """Build it in training mode, with the same weights each time.

    Args:
        norm (dict, optional): ``norm_cfg`` of backbone and neck; default BN.
        **head: Options of the head.
    """
    norm = norm or dict(type='BN')
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='UniMoCo',
            momentum=0.01,
            backbone=dict(
                type='ResNet',
                depth=18,
                stem_channels=8,
                base_channels=8,
                norm_cfg=norm,
            ),
            neck=dict(
                type='MoCoV2Neck',
                in_channels=64,
                hid_channels=32,
                out_channels=DIM,
            ),
            head=dict(
                type='UniMoCoHead',
                feat_dim=DIM,
                queue_len=QUEUE_LEN,
                temperature=0.2,
            )
            | head,
        )
    )
    model.init_weights()
    return model.train()


def data_samples(labels):
    """Data samples; -1 in turn as an absent label and as -1."""
    samples = []
    for i, label in enumerate(labels.tolist()):
        sample = DataSample(metainfo=dict(sample_idx=i))
        if label >= 0 or i % 2:
            sample.set_gt_label(label)
        samples.append(sample)
    return samples


def draw_batches(steps, n=8, classes=3, unlabeled=0.5, dtype=torch.float32):
    """Yield two views (n, 3, 32, 32) on the CPU, and labels (n,)."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        views = [
            torch.randn(n, 3, 32, 32, generator=generator).to(dtype)
            for _ in range(2)
        ]
        labels = torch.randint(classes, (n,), generator=generator)
        labels[torch.rand(n, generator=generator) < unlabeled] = -1
        yield views, labels


def compute_loss(model, views, labels):
    """Loss and log values of a CPU batch on the model's device."""
    device = next(model.parameters()).device
    views = [view.to(device) for view in views]
    return model(views, data_samples(labels), mode='loss')
