"""A UniMoCo of a narrow ResNet-18, and batches for it."""

import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

import mmunimoco  # noqa: F401

QUEUE_LEN, DIM = 32, 16
TEMPERATURE, MOMENTUM = 0.2, 0.01
SGD = dict(lr=0.03, momentum=0.9, weight_decay=1e-4)


def unimoco_config(norm=None, head=None, **options):
    """Its config.

    Args:
        norm (dict, optional): ``norm_cfg`` of the backbone; default BN.
        head (dict, optional): Options of the head.
        **options: Of the algorithm.
    """
    config = dict(
        type='UniMoCo',
        momentum=MOMENTUM,
        backbone=dict(
            type='ResNet',
            depth=18,
            stem_channels=8,
            base_channels=8,
            norm_cfg=norm or dict(type='BN'),
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
            temperature=TEMPERATURE,
        )
        | (head or {}),
    )
    return config | options


def build_unimoco(norm=None, seed=0, options=None, **head):
    """Build it in training mode, with the same weights for the same seed.

    Args:
        norm (dict, optional): ``norm_cfg`` of the backbone; default BN.
        seed (int): Of the weights.
        options (dict, optional): Options of the algorithm.
        **head: Options of the head.
    """
    torch.manual_seed(seed)
    model = MODELS.build(unimoco_config(norm, head, **(options or {})))
    model.init_weights()
    return model.train()


class Encoder(nn.Module):
    """Backbone and neck of a model as one module that returns a tensor."""

    def __init__(self, model):
        super().__init__()
        self.backbone, self.neck = model.backbone, model.neck

    def forward(self, x):
        return self.neck(self.backbone(x))[0]


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


def trained_parameters(model):
    return [p for p in model.parameters() if p.requires_grad]


def train_step(model, optimizer, views, labels):
    """One step of an optimizer; the loss before it."""
    loss = compute_loss(model, views, labels)['loss']
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
