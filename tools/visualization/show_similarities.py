"""Show how similar queries are to their positives and negatives, by classes.

    python tools/visualization/show_similarities.py CONFIG CHECKPOINT

Histograms of cosine similarities of the queries of --batches training batches
with their own keys and with the queue of the checkpoint: keys of the same
label, of other labels (for unlabeled queries all labeled keys), and unlabeled
keys. Prints their means. The closer positives and negatives lie, the less the
network tells them apart. Below, how many keys of each class the queue holds.
"""

import argparse
import sys

import torch
from matplotlib import pyplot
from torch import Tensor
from training_batches import batches, features, load, run

from mmunimoco.models.labels import same_class

BINS = 80
MOST_NAMES = 20  # of classes, below their bars


def show(args: argparse.Namespace) -> None:
    cfg, model = load(args)
    queue = model.head.queue.float().cpu()
    queue_labels = model.head.label_queue.cpu()
    counts, sums, names = {}, {}, {}
    for batch in batches(cfg, model, args.batches, args.seed):
        query, key = features(model, batch)
        names |= dict(zip(batch.labels.tolist(), batch.names, strict=True))
        groups = split(query, key, batch.labels, queue, queue_labels)
        for name, values in groups.items():
            new = torch.histc(values, BINS, -1, 1).double()
            counts[name] = counts.get(name, 0) + new
            sums[name] = sums.get(name, 0) + values.double().sum()
    figure, (axis, classes_axis) = pyplot.subplots(
        2, figsize=(7, 6), height_ratios=(3, 2), layout='constrained'
    )
    _draw_similarities(axis, counts, sums)
    _draw_classes(
        classes_axis, queue_labels, names, model.head.num_classes or 0
    )
    figure.savefig(args.out, dpi=120)
    pyplot.close(figure)


def _draw_similarities(
    axis: pyplot.Axes, counts: dict[str, Tensor], sums: dict[str, Tensor]
) -> None:
    edges = torch.linspace(-1, 1, BINS + 1)
    for name, count in counts.items():
        total = int(count.sum())
        if not total:
            continue
        mean = (sums[name] / total).item()
        label = f'{name}: mean {mean:.3f}, {total} pairs'
        print(label)
        axis.stairs(count / total * BINS / 2, edges, label=label, linewidth=2)
    used = sum(counts.values()).nonzero()[0].item()
    axis.set_xlim(edges[used].item(), 1)
    axis.set_xlabel('cosine similarity')
    axis.set_ylabel('density')
    axis.legend(fontsize=8)


def _draw_classes(
    axis: pyplot.Axes,
    labels: Tensor,
    names: dict[int, str],
    num_classes: int,
) -> None:
    """Draw a bar for each class that is known, or up to the highest."""
    counts = labels[labels >= 0].bincount(minlength=num_classes)
    text = f'queue of {len(labels)} keys, {counts.sum()} labeled'
    if counts.any():
        text += f', {counts.min()} to {counts.max()} of a class'
    print(text)
    axis.set_title(text, fontsize='medium')
    axis.bar(range(len(counts)), counts)
    axis.set_xlabel('class')
    axis.set_ylabel('keys')
    if len(counts) <= MOST_NAMES:
        ticks = [names.get(i, str(i)) for i in range(len(counts))]
        axis.set_xticks(range(len(counts)), ticks, fontsize=7, rotation=30)


def split(
    query: Tensor,
    key: Tensor,
    labels: Tensor,
    queue: Tensor,
    queue_labels: Tensor,
) -> dict[str, Tensor]:
    """Return the similarities of each kind of pair, each of shape (P,)."""
    similarity = (query @ queue.T).clamp(-1, 1)
    same = same_class(labels, queue_labels)
    labeled = (queue_labels >= 0).expand_as(same)
    return {
        'own key': (query * key).sum(dim=1).clamp(-1, 1),
        'same label': similarity[same],
        'other label': similarity[labeled & ~same],
        'unlabeled key': similarity[~labeled],
    }


if __name__ == '__main__':
    sys.exit(run(__doc__, 'similarities.png', show, shows_images=False))
