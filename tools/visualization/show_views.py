"""Show the two views of training images, as the network sees them.

    python tools/visualization/show_views.py CONFIG --out views.png

With the augmentation of the data preprocessor, which mmpretrain's
browse_dataset.py does not show. Each column is an image: query view above, key
view below.
"""

import argparse
import sys

import torch
from matplotlib import pyplot
from training_batches import as_images, batches, load, run


def show(args: argparse.Namespace) -> None:
    cfg, model = load(args)
    count = -(-args.images // cfg.train_dataloader.batch_size)
    found = list(batches(cfg, model, count, args.seed))
    names = [name for batch in found for name in batch.names][: args.images]
    rows = [
        as_images(model, torch.cat([batch.views[i] for batch in found]))
        for i in range(2)
    ]
    figure, axes = pyplot.subplots(
        2,
        len(names),
        figsize=(1.6 * len(names), 3.6),
        squeeze=False,
        layout='constrained',
    )
    for axis_row, images, kind in zip(
        axes, rows, ('query', 'key'), strict=True
    ):
        for axis, image in zip(axis_row, images, strict=False):
            axis.imshow(image.numpy())
            axis.set_xticks([])
            axis.set_yticks([])
        axis_row[0].set_ylabel(kind)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name or 'unlabeled', fontsize=8)
    figure.savefig(args.out, dpi=120)
    pyplot.close(figure)


if __name__ == '__main__':
    sys.exit(run(__doc__, 'views.png', show, needs_weights=False))
