"""A small model of the slow start: how long features stay in a cone.

Each class is a set of random points in 64 dimensions, so nothing but learning
the points tells the class: at first the features of a new network say nothing
of it, as with photographs. A view is a point with noise. The encoder is a
perceptron, the head is :class:`mmunimoco.models.UniMoCoHead` itself.

    python docs/benchmarks/cifar10-cpu/cone_model.py --out cone_model.json
"""

import argparse
import copy
import json
from collections import deque
from pathlib import Path

import torch
import torch.nn.functional as F

from mmunimoco.models import UniMoCoHead
from mmunimoco.utils.versions import describe_environment

_DIM, _WIDTH, _BATCH, _IMAGES, _NOISE = 64, 128, 64, 8000, 0.5
_STEPS = 2500
# Name -> what differs from 10 classes of 100 points, all labels, UniCon,
# K 1024, m 0.99, temperature 0.2, AdamW with 1e-3.
CASES = {
    'no labels': dict(label_ratio=0.0),
    'all labels': {},
    '10 % of the labels': dict(label_ratio=0.1),
    '3 classes': dict(classes=3, points_per_class=333),
    '100 classes': dict(classes=100, points_per_class=10),
    'K 256': dict(queue_len=256),
    'm 0.9': dict(m=0.9),
    'm 0, K 128': dict(m=0.0, queue_len=128),
    'temperature 0.1': dict(temperature=0.1),
    'temperature 0.5': dict(temperature=0.5),
    'lr 3e-4': dict(lr=3e-4),
    'lr 3e-3': dict(lr=3e-3),
    'weight decay 0': dict(weight_decay=0.0),
    'weight decay 0.5': dict(weight_decay=0.5),
    'no batch norm': dict(batch_norm=False),
    '1 hidden layer': dict(hidden=1),
    '5 hidden layers': dict(hidden=5),
    'SupCon out': dict(loss=dict(type='SupConLoss')),
    'SupCon in': dict(loss=dict(type='SupConLoss', reduction_position='in')),
    'own_key_weight 10': dict(loss=dict(type='UniConLoss', own_key_weight=10)),
    'own_key_weight 100': dict(
        loss=dict(type='UniConLoss', own_key_weight=100)
    ),
    'own_key_weight balanced': dict(
        loss=dict(type='UniConLoss', own_key_weight='balanced')
    ),
    'own_key_weight balanced, temperature 0.1': dict(
        temperature=0.1,
        loss=dict(type='UniConLoss', own_key_weight='balanced'),
    ),
    'max_positives 8': dict(max_positives=8),
    'label_warmup 500': dict(label_warmup=500),
}


def make_points(
    classes: int, per_class: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images of shape (8000, 64) and their classes."""
    centers = torch.randn(classes * per_class, _DIM)
    which = torch.arange(_IMAGES) % len(centers)
    noise = _NOISE * torch.randn(_IMAGES, _DIM)
    return centers[which] + noise, which % classes


def encoder(
    outputs: int, hidden: int, batch_norm: bool
) -> torch.nn.Sequential:
    """Return a perceptron with so many hidden layers."""
    layers = []
    for inputs in (_DIM, *[_WIDTH] * (hidden - 1)):
        layers.append(torch.nn.Linear(inputs, _WIDTH))
        layers += [torch.nn.BatchNorm1d(_WIDTH)] if batch_norm else []
        layers.append(torch.nn.ReLU())
    return torch.nn.Sequential(*layers, torch.nn.Linear(_WIDTH, outputs))


def run(
    seed: int,
    classes: int = 10,
    points_per_class: int = 100,
    label_ratio: float = 1.0,
    m: float = 0.99,
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    hidden: int = 3,
    batch_norm: bool = True,
    **head: object,
) -> dict:
    """Train until positives stand out from negatives.

    Returns:
        dict: ``left``, the step after which the similarity of positives
        exceeds that of negatives by 0.5 (mean of 20 steps), or None;
        ``cone``, the largest similarity of negatives (mean of 20 steps).
    """
    torch.manual_seed(seed)
    images, labels = make_points(classes, points_per_class)
    labels[torch.rand(_IMAGES) >= label_ratio] = -1
    query_encoder = encoder(_DIM, hidden, batch_norm)
    key_encoder = copy.deepcopy(query_encoder)
    weights = list(query_encoder.parameters())
    keys = list(key_encoder.parameters())
    options = dict(queue_len=1024, temperature=0.2, num_classes=classes)
    head = UniMoCoHead(feat_dim=_DIM, **options | head)
    optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=weight_decay)
    # Similarities of positives and of negatives, over 20 steps.
    recent = deque(maxlen=20)
    cone = 0.0
    for step in range(1, _STEPS + 1):
        drawn = torch.randint(_IMAGES, (_BATCH,))
        views = images[drawn] + _NOISE * torch.randn(2, _BATCH, _DIM)
        with torch.no_grad():
            torch._foreach_lerp_(keys, weights, 1 - m)
            key = F.normalize(key_encoder(views[1]), dim=1)
        query = F.normalize(query_encoder(views[0]), dim=1)
        losses = head.loss(query, key, labels[drawn])
        optimizer.zero_grad()
        losses['loss'].backward()
        optimizer.step()
        names = ('positive_similarity', 'negative_similarity')
        recent.append([losses[name].item() for name in names])
        if step < 50:  # the queue is filled first
            continue
        positive, negative = torch.tensor(recent).mean(dim=0).tolist()
        cone = max(cone, negative)
        if positive - negative > 0.5:
            return dict(left=step, cone=round(cone, 3))
    return dict(left=None, cone=round(cone, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', required=True, help='JSON file to write')
    parser.add_argument('--seeds', type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    record = dict(environment=describe_environment(), steps=_STEPS, cases={})
    for name, options in CASES.items():
        runs = [run(seed, **options) for seed in range(args.seeds)]
        record['cases'][name] = runs
        print(name, *runs, flush=True)
        Path(args.out).write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
    main()
