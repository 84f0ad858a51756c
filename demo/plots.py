"""The pictures of the report, as PNGs."""

from collections.abc import Iterable

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from .figures import STYLE, figure_png
from .results import TRANSFER_METRICS, row_name
from .scenes import Scene
from .settings import BACKBONES, backbone_title

# Okabe and Ito's palette, which colour-blind readers can distinguish.
STYLES = {
    None: dict(color='#555555', linestyle='--'),
    0.0: dict(color='#0072B2', marker='o'),
    0.1: dict(color='#D55E00', marker='s'),
    1.0: dict(color='#009E73', marker='^'),
}
# Ten colours of Tol's "muted" scheme and black. Ten are too many to
# distinguish for everybody, so the classes are also named in the picture.
CLASS_COLORS = (
    *('#CC6677', '#332288', '#DDCC77', '#117733', '#88CCEE'),
    *('#882255', '#44AA99', '#999933', '#AA4499', '#222222'),
)
# On the dark scenes, white instead of black.
SCENE_COLORS = np.array([to_rgb(c) for c in (*CLASS_COLORS[:-1], '#FFFFFF')])

# Class, box (x1, y1, x2, y2) and (H, W) bool mask of an object.
ShownObject = tuple[int, Iterable[float], np.ndarray]


@mpl.rc_context(STYLE)
def plot_curves(summary: dict) -> bytes:
    """Draw loss and kNN accuracy over the steps.

    Not over the epochs, which are longer where images are repeated.
    """
    figure = Figure(figsize=(9.6, 3.9), layout='constrained')
    loss, knn = figure.subplots(1, 2)
    for entry in summary['pretrain']:
        ratio = entry['label_ratio']
        for axes, key in ((loss, 'loss'), (knn, 'knn_top1')):
            points = np.array(entry['curves'][key]).reshape(-1, 2)
            points = points * (entry['steps'] / entry['epochs'], 1)
            axes.plot(
                *points.T,
                label=backbone_title(ratio),
                markevery=max(1, len(points) // 10),
                markersize=4,
                linewidth=1.8,
                **STYLES[ratio],
            )
        # Of the last score.
        knn.errorbar(
            *points[-1:].T,
            yerr=summary['seed_std'][row_name(ratio)]['knn_top1'],
            color=STYLES[ratio]['color'],
            capsize=4,
        )
    knn.axhline(
        summary['random_init']['knn_top1'],
        label=backbone_title(None),
        **STYLES[None],
    )
    loss.set(
        title='Training loss\n(not comparable between shares of labels)',
        xlabel='step',
        ylabel='UniCon loss',
    )
    knn.set(
        title='kNN accuracy of the features\non the test images',
        xlabel='step',
        ylabel='kNN top-1 in %',
    )
    for axes in (loss, knn):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(
        *knn.get_legend_handles_labels(), loc='outside lower center', ncols=4
    )
    return figure_png(figure)


@mpl.rc_context(STYLE)
def plot_embedding(
    places: dict[float | None, np.ndarray],
    labels: np.ndarray,
    classes: tuple[str, ...],
    summary: dict,
) -> bytes:
    """Draw the embedded test images, one panel for each backbone.

    Args:
        places (dict): Share of labels (None: random weights) -> (N, 2)
            coordinates.
        labels (np.ndarray): (N,) classes.
        classes (tuple[str, ...]): Names of the classes.
        summary (dict): For the kNN accuracies.
    """
    scores = {e['label_ratio']: e['knn_top1'] for e in summary['pretrain']}
    scores[None] = summary['random_init']['knn_top1']
    figure = Figure(figsize=(9.6, 9.4), layout='constrained')
    grid = figure.subplots(2, 2).flat
    for axes, (ratio, points) in zip(grid, places.items(), strict=True):
        _draw_points(axes, points, labels, classes)
        axes.set_title(f'{backbone_title(ratio)}: kNN {scores[ratio]:.1f} %')
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


@mpl.rc_context(STYLE)
def plot_transfer(summary: dict) -> bytes:
    """Draw a bar for each backbone and metric of transfer."""
    figure = Figure(figsize=(9.6, 3.6), layout='constrained')
    panels = figure.subplots(1, len(TRANSFER_METRICS))
    names = [backbone_title(r).replace(' ', '\n') for r in BACKBONES]
    names = [name.replace('\n%', ' %') for name in names]
    colors = [STYLES[ratio]['color'] for ratio in BACKBONES]
    for axes, (name, (task, key)) in zip(
        panels, TRANSFER_METRICS.items(), strict=True
    ):
        values = [entry[key] for entry in summary[task]]
        errors = [summary['seed_std'][row_name(r)][key] for r in BACKBONES]
        bars = axes.bar(
            names, values, yerr=errors, color=colors, width=0.65, capsize=4
        )
        axes.bar_label(bars, [f'{value:.1f}' for value in values], padding=2)
        axes.axhline(values[0], color=colors[0], linewidth=1, alpha=0.6)
        axes.grid(axis='x', visible=False)
        top = max(map(sum, zip(values, errors, strict=True)))
        axes.set_ylim(0, max(1.0, 1.15 * top))
        axes.set_title(f'{name} in %')
    return figure_png(figure)


@mpl.rc_context(STYLE)
def plot_predictions(
    scenes: list[Scene],
    predictions: dict[float | None, tuple[dict, np.ndarray]],
    classes: tuple[str, ...],
) -> bytes:
    """Draw the predictions from each backbone beside the ground truth.

    There are two rows for each scene, objects and classes of the pixels.

    Args:
        scenes (list[Scene]): The scenes.
        predictions (dict): Share of labels (None: random weights) -> arrays
            of :func:`detected_objects`, and (scenes, H, W) classes.
        classes (tuple[str, ...]): Names of the classes.
    """
    figure = Figure(figsize=(9.6, 4 * len(scenes) + 0.6), layout='constrained')
    grid = figure.subplots(
        2 * len(scenes), 1 + len(predictions), squeeze=False
    )
    for row, scene in enumerate(scenes):
        truth = [(o.label, o.corners, o.mask) for o in scene.objects]
        columns = [(truth, scene.semantic)]
        for found, pixels in predictions.values():
            objects = zip(
                *(found[key] for key in ('scene', 'labels', 'boxes', 'masks')),
                strict=True,
            )
            objects = [rest for index, *rest in objects if index == row]
            columns.append((objects, pixels[row]))
        for column, (objects, pixels) in enumerate(columns):
            _draw_objects(grid[2 * row, column], scene.image, objects)
            _draw_classes(grid[2 * row + 1, column], scene.image, pixels)
    titles = ['ground truth', *map(backbone_title, predictions)]
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=10)
    handles = [
        Patch(facecolor=color, edgecolor='#222222', label=name)
        for color, name in zip(SCENE_COLORS, classes, strict=True)
    ]
    figure.legend(handles=handles, loc='outside lower center', ncols=5)
    return figure_png(figure)


def _draw_points(
    axes: Axes, points: np.ndarray, labels: np.ndarray, classes: tuple
) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color('#BBBBBB')
    centres = {}
    for index, (name, color) in enumerate(
        zip(classes, CLASS_COLORS, strict=True)
    ):
        chosen = points[labels == index]
        axes.scatter(
            *chosen.T, s=5, color=color, alpha=0.75, linewidths=0, label=name
        )
        if len(chosen):
            centres[name, color] = np.median(chosen, axis=0)
    axes.autoscale_view()
    in_panel = axes.transData + axes.transAxes.inverted()
    places = _spread(in_panel.transform(list(centres.values())))
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
    """Move overlapping names, (N, 2) in fractions of the panel, upwards."""
    width, height = 0.2, 0.055
    places = places.copy()
    order = np.argsort(places[:, 1])
    for position, index in enumerate(order):
        for other in order[:position]:
            near = np.abs(places[index] - places[other]) < (width, height)
            if near.all():
                places[index, 1] = places[other, 1] + height
    return places


def _draw_objects(
    axes: Axes, image: np.ndarray, objects: list[ShownObject]
) -> None:
    colored = image / 255
    for label, (x1, y1, x2, y2), mask in objects:
        color = SCENE_COLORS[label]
        colored[mask] = 0.5 * colored[mask] + 0.5 * color
        axes.add_patch(
            Rectangle(
                (x1 - 0.5, y1 - 0.5),
                x2 - x1,
                y2 - y1,
                fill=False,
                edgecolor=color,
                linewidth=1.4,
            )
        )
    _show(axes, colored)


def _draw_classes(axes: Axes, image: np.ndarray, classes: np.ndarray) -> None:
    colored = 0.35 * image / 255
    known = classes > 0
    colored[known] = SCENE_COLORS[classes[known] - 1]
    _show(axes, colored)


def _show(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(picture)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
