"""The two pictures of transfer: scores, and predictions beside the truth."""

import json

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from mmpretrain.datasets.categories import FASHIONMNIST_CATEGORITES
from PIL import Image

from mmunimoco.utils.figures import STYLE, figure_png

from .plots import CLASS_COLORS, RANDOM_COLOR, RATIO_STYLES
from .predictions import SHOWN_SCENES
from .settings import DemoSettings
from .summary import TRANSFER_METRICS
from .tables import ratio_name
from .transfer import DETECTION, INITS, SEGMENTATION, predictions_file
from .transfer_configs import scenes_dir

# Black would vanish on the dark scenes.
_COLORS = np.array([to_rgb(c) for c in (*CLASS_COLORS[:-1], '#FFFFFF')])


def plot_transfer(summary: dict) -> bytes:
    """Draw a bar for each initialisation and metric.

    Args:
        summary (dict): From :func:`build_summary`, with transfer.

    Returns:
        bytes: A PNG.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.6), layout='constrained')
        panels = figure.subplots(1, len(TRANSFER_METRICS))
        for axes, (name, task, key) in zip(
            panels, TRANSFER_METRICS, strict=True
        ):
            _draw_bars(axes, [entry[key] for entry in summary[task]])
            axes.set(title=f'{name} in %')
        return figure_png(figure)


def _draw_bars(axes: Axes, values: list[float]) -> None:
    names = [
        'random\nweights' if ratio is None else f'{100 * ratio:g} %\nlabels'
        for ratio in INITS
    ]
    colors = [
        RANDOM_COLOR if ratio is None else RATIO_STYLES[ratio]['color']
        for ratio in INITS
    ]
    bars = axes.bar(names, values, color=colors, width=0.65)
    axes.bar_label(bars, [f'{value:.1f}' for value in values], padding=2)
    axes.axhline(values[0], color=RANDOM_COLOR, linewidth=1, alpha=0.6)
    axes.grid(axis='x', visible=False)
    axes.set_ylim(0, max(1.0, 1.15 * max(values)))


def plot_predictions(settings: DemoSettings) -> bytes:
    """Draw predictions of each backbone beside the ground truth.

    Args:
        settings (DemoSettings): The run; its transfer stages are finished.

    Returns:
        bytes: A PNG: a column for the truth and for each initialisation, two
        rows a scene (objects, classes of pixels).
    """
    images, masks, truth = _ground_truth(settings)
    columns = [('ground truth', truth, masks)]
    for ratio in INITS:
        with np.load(predictions_file(settings, DETECTION, ratio)) as file:
            objects = dict(file)
        with np.load(predictions_file(settings, SEGMENTATION, ratio)) as file:
            classes = file['classes']
        name = 'random weights' if ratio is None else ratio_name(ratio)
        columns.append((name, objects, classes))
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(9.6, 4 * len(images) + 0.6), layout='constrained'
        )
        grid = figure.subplots(2 * len(images), len(columns), squeeze=False)
        for place, (name, objects, classes) in enumerate(columns):
            grid[0, place].set_title(name, fontsize=10)
            for scene, image in enumerate(images):
                above, below = grid[2 * scene : 2 * scene + 2, place]
                _draw_objects(above, image, objects, scene)
                _draw_classes(below, image, classes[scene])
        handles = [
            Patch(facecolor=color, edgecolor='#222222', label=label)
            for color, label in zip(
                _COLORS, FASHIONMNIST_CATEGORITES, strict=True
            )
        ]
        figure.legend(handles=handles, loc='outside lower center', ncols=5)
        return figure_png(figure)


def _ground_truth(
    settings: DemoSettings,
) -> tuple[list[np.ndarray], list[np.ndarray], dict[str, np.ndarray]]:
    """Images, classes of their pixels, and objects as predicted ones."""
    root = scenes_dir(settings)
    coco = json.loads((root / 'annotations/instances_val.json').read_text())
    infos = coco['images'][:SHOWN_SCENES]
    images, masks = (
        [
            np.asarray(Image.open(root / k / 'val' / i['file_name']))
            for i in infos
        ]
        for k in ('images', 'masks')
    )
    place = {info['id']: scene for scene, info in enumerate(infos)}
    shown = [a for a in coco['annotations'] if a['image_id'] in place]
    boxes = np.array([a['bbox'] for a in shown], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    objects = dict(
        scene=np.array([place[a['image_id']] for a in shown]),
        boxes=boxes,
        labels=np.array([a['category_id'] - 1 for a in shown]),
        masks=np.array([_decode(a['segmentation']) for a in shown]),
    )
    return images, masks, objects


def _decode(segmentation: dict) -> np.ndarray:
    """Mask of COCO's uncompressed run lengths."""
    counts = segmentation['counts']
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(segmentation['size'][::-1]).T


def _draw_objects(
    axes: Axes, image: np.ndarray, objects: dict[str, np.ndarray], scene: int
) -> None:
    colored = image / 255
    for index in np.flatnonzero(objects['scene'] == scene):
        color = _COLORS[objects['labels'][index]]
        mask = objects['masks'][index]
        colored[mask] = 0.5 * colored[mask] + 0.5 * color
        left, top, right, bottom = objects['boxes'][index]
        axes.add_patch(
            Rectangle(
                (left - 0.5, top - 0.5),
                right - left,
                bottom - top,
                fill=False,
                edgecolor=color,
                linewidth=1.4,
            )
        )
    _show(axes, colored)


def _draw_classes(axes: Axes, image: np.ndarray, classes: np.ndarray) -> None:
    colored = 0.35 * image / 255
    known = classes > 0
    colored[known] = _COLORS[classes[known] - 1]
    _show(axes, colored)


def _show(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(picture)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
