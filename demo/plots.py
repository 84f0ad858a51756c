"""The two pictures of the report."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmunimoco.utils.figures import STYLE, figure_png

from .tables import ratio_name

# Okabe and Ito's palette: told apart by colour-blind readers too.
RATIO_STYLES = {
    0.0: dict(color='#0072B2', marker='o'),
    0.1: dict(color='#D55E00', marker='s'),
    1.0: dict(color='#009E73', marker='^'),
}
RANDOM_COLOR = '#555555'
# Ten colours of Tol's "muted" scheme and black; every class is named in the
# picture besides, because ten colours are too many to tell apart by all.
CLASS_COLORS = (
    '#CC6677',
    '#332288',
    '#DDCC77',
    '#117733',
    '#88CCEE',
    '#882255',
    '#44AA99',
    '#999933',
    '#AA4499',
    '#222222',
)


def plot_curves(summary: dict) -> bytes:
    """Draw loss and kNN over the epochs.

    Args:
        summary (dict): From :func:`build_summary`.

    Returns:
        bytes: A PNG.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.9), layout='constrained')
        loss, knn = figure.subplots(1, 2)
        for entry in summary['pretrain']:
            ratio = entry['label_ratio']
            style = dict(RATIO_STYLES[ratio], markersize=4, linewidth=1.8)
            for axes, key in ((loss, 'loss'), (knn, 'knn_top1')):
                points = np.array(entry['curves'][key]).reshape(-1, 2)
                every = max(1, len(points) // 10)
                axes.plot(*points.T, markevery=every, **style)
                axes.lines[-1].set_label(ratio_name(ratio))
        loss.set(
            title='Training loss\n(levels of different label shares do not '
            'compare)',
            xlabel='epoch',
            ylabel='UniCon loss',
        )
        random = summary['random_init']['knn_top1']
        knn.axhline(
            random,
            color=RANDOM_COLOR,
            linestyle='--',
            label='random weights',
        )
        knn.set(
            title='kNN accuracy of the features\non the test images',
            xlabel='epoch',
            ylabel='kNN top-1 in %',
        )
        for axes in (loss, knn):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(
            *knn.get_legend_handles_labels(),
            loc='outside lower center',
            ncols=4,
        )
        return figure_png(figure)


def plot_embedding(
    places: dict[float | None, np.ndarray],
    labels: np.ndarray,
    classes: tuple[str, ...],
    scores: dict[float | None, float],
) -> bytes:
    """Draw the test images in the plane, one panel for each backbone.

    Args:
        places (dict): Share of labels (None: random weights) -> (N, 2)
            coordinates.
        labels (np.ndarray): (N,) classes.
        classes (tuple[str, ...]): Names of the classes.
        scores (dict): As ``places``: kNN top-1 in percent.

    Returns:
        bytes: A PNG.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 9.4), layout='constrained')
        grid = figure.subplots(2, 2).flat
        for axes, (ratio, points) in zip(grid, places.items(), strict=True):
            _draw_classes(axes, points, labels, classes)
            name = ratio_name(ratio)
            if ratio is None:
                name = 'random weights'
            axes.set_title(f'{name}: kNN {scores[ratio]:.1f} %')
        figure.suptitle(
            f'{len(labels)} test images, coloured by class (t-SNE of the '
            'backbone features; axes have no unit)',
            fontsize=11.5,
        )
        figure.legend(
            *axes.get_legend_handles_labels(),
            loc='outside lower center',
            ncols=5,
            markerscale=3,
        )
        return figure_png(figure)


def _draw_classes(
    axes: Axes,
    points: np.ndarray,
    labels: np.ndarray,
    classes: tuple[str, ...],
) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color('#BBBBBB')
    centres = {}
    for index, name in enumerate(classes):
        chosen = points[labels == index]
        color = CLASS_COLORS[index % len(CLASS_COLORS)]
        axes.scatter(
            *chosen.T, s=5, color=color, alpha=0.75, linewidths=0, label=name
        )
        if len(chosen):
            centres[name, color] = np.median(chosen, axis=0)
    axes.autoscale_view()
    places = _spread(
        axes.transAxes.inverted().transform(
            axes.transData.transform(list(centres.values()))
        )
    )
    for (name, color), place in zip(centres, places, strict=True):
        axes.text(
            *place,
            name,
            transform=axes.transAxes,
            fontsize=8.5,
            ha='center',
            va='center',
            bbox=dict(
                boxstyle='round,pad=0.2',
                facecolor='white',
                edgecolor=color,
                linewidth=1.2,
                alpha=0.85,
            ),
        )


def _spread(places: np.ndarray) -> np.ndarray:
    """Push names that would cover each other apart, upwards.

    Args:
        places (np.ndarray): (N, 2), in parts of the panel.

    Returns:
        np.ndarray: (N, 2).
    """
    width, height = 0.2, 0.055
    places = places.copy()
    order = np.argsort(places[:, 1])
    for position, index in enumerate(order):
        for other in order[:position]:
            near = np.abs(places[index] - places[other]) < (width, height)
            if near.all():
                places[index, 1] = places[other, 1] + height
    return places
