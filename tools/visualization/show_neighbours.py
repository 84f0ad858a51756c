"""Show the nearest keys of some queries, as images.

    python tools/visualization/show_neighbours.py CONFIG CHECKPOINT

A queue holds no images, so its keys are computed anew: those of --batches
training batches. Each row is a query, its own key and the nearest other keys,
with their cosine similarity. Frames: green for the query's label, red for
another one, gray if either is unlabeled.
"""

import argparse
import sys

import torch
from matplotlib import pyplot
from torch import Tensor
from training_batches import as_images, batches, features, load, run

NEIGHBOURS = 8
COLOURS = {True: 'tab:green', False: 'tab:red', None: 'silver'}


def show(args: argparse.Namespace) -> None:
    cfg, model = load(args)
    queries, keys, labels, names, views = [], [], [], [], [[], []]
    for batch in batches(cfg, model, args.batches, args.seed):
        query, key = features(model, batch)
        queries.append(query)
        keys.append(key)
        labels += batch.labels.tolist()
        names += batch.names
        for kept, view in zip(views, batch.views, strict=True):
            kept.append(as_images(model, view))
    count = min(args.images, len(names))
    similarity = torch.cat(queries)[:count] @ torch.cat(keys).T
    nearest = nearest_others(similarity, NEIGHBOURS)
    columns = 2 + nearest.shape[1]
    figure, axes = pyplot.subplots(
        count,
        columns,
        figsize=(1.3 * columns, 1.5 * count),
        squeeze=False,
        layout='constrained',
    )
    query_views, key_views = (torch.cat(kept) for kept in views)
    for row, axis_row in enumerate(axes):
        _draw(axis_row[0], query_views[row], f'query {names[row]}', 'black')
        for axis, place in zip(
            axis_row[1:], [row, *nearest[row].tolist()], strict=True
        ):
            colour = COLOURS[is_same(labels[row], labels[place])]
            if place == row:
                colour = 'tab:blue'
            title = f'{similarity[row, place]:.2f} {names[place]}'
            _draw(axis, key_views[place], title, colour)
    axes[0, 1].set_xlabel('own key', fontsize=7)
    figure.savefig(args.out, dpi=120)
    pyplot.close(figure)


def nearest_others(similarity: Tensor, count: int) -> Tensor:
    """Places of the nearest keys of each query i but its own, key i."""
    similarity = similarity.clone().fill_diagonal_(float('-inf'))
    count = min(count, similarity.shape[1] - 1)
    return similarity.topk(count, dim=1).indices


def is_same(label: int, other: int) -> bool | None:
    """Whether two labels agree; None if one is unlabeled."""
    return None if -1 in (label, other) else label == other


def _draw(axis: pyplot.Axes, image: Tensor, title: str, colour: str) -> None:
    axis.imshow(image.numpy())
    axis.set_title(title, fontsize=7)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(color=colour, linewidth=3)


if __name__ == '__main__':
    sys.exit(run(__doc__, 'neighbours.png', show))
