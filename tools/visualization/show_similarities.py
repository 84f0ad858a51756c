"""Show how similar queries are to their positives and negatives.

    python tools/visualization/show_similarities.py CONFIG CHECKPOINT

Histograms of cosine similarities of the queries of --batches training batches
with their own keys and with the queue of the checkpoint: keys of the same
label, of other labels (for unlabeled queries all labeled keys), and unlabeled
keys. Prints their means. The closer positives and negatives lie, the less the
network tells them apart.
"""

import argparse
import sys

import torch
from matplotlib import pyplot
from torch import Tensor
from training_batches import batches, features, load, run

from mmunimoco.models.labels import same_class

BINS = 80


def show(args: argparse.Namespace) -> None:
    cfg, model = load(args)
    queue = model.head.queue.float().cpu()
    queue_labels = model.head.label_queue.cpu()
    counts, sums = {}, {}
    for batch in batches(cfg, model, args.batches, args.seed):
        query, key = features(model, batch)
        groups = split(query, key, batch.labels, queue, queue_labels)
        for name, values in groups.items():
            new = torch.histc(values, BINS, -1, 1).double()
            counts[name] = counts.get(name, 0) + new
            sums[name] = sums.get(name, 0) + values.double().sum()
    figure, axis = pyplot.subplots(figsize=(7, 4), layout='constrained')
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
    figure.savefig(args.out, dpi=120)
    pyplot.close(figure)


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
