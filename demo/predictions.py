"""Predictions on the first validation scenes, as a picture."""

import io
import warnings
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from mmpretrain.datasets.categories import FASHIONMNIST_CATEGORITES

from mmunimoco.datasets.npz_images import read_npz_split
from mmunimoco.study.plan import last_checkpoint

from . import DATA_FILE
from .figures import CLASS_COLORS, STYLE
from .scenes import Scene, compose_scene

# The score from which on a detection is drawn.
SHOWN_SCENES, SHOWN_SCORE = 3, 0.5
CAPTION = (
    'The first validation scenes (not selected): ground truth, then the '
    'predictions from each backbone. Boxes: detections with a score of at '
    f'least {SHOWN_SCORE}. Colors: classes.'
)
# On the dark scenes, white instead of black.
SCENE_COLORS = np.array([to_rgb(c) for c in (*CLASS_COLORS[:-1], '#FFFFFF')])

# Class, box (x1, y1, x2, y2) and (H, W) bool mask of an object.
ShownObject = tuple[int, Iterable[float], np.ndarray]
# Objects and (H, W) classes of a scene.
ShownScene = tuple[list[ShownObject], np.ndarray]


def draw_predictions(jobs: Sequence) -> tuple[Figure, str] | None:
    """Draw what each fine-tuned model finds.

    Returns:
        tuple[Figure, str] | None: The figure and its caption; None without
        detection and segmentation.
    """
    found: dict[str, dict[str, list]] = {}
    for job in jobs:
        if job.settings['type'] == 'transfer':
            samples = predict(job.cfg, str(last_checkpoint(job.folder)))
            read = dict(detection=_objects, segmentation=_classes)
            found.setdefault(job.variant.name, {})[job.evaluation] = [
                read[job.evaluation](sample) for sample in samples
            ]
    if not found:
        return None
    source = read_npz_split(DATA_FILE, 'test')
    scenes = [
        compose_scene(source, 'test', index, jobs[0].seed)
        for index in range(SHOWN_SCENES)
    ]
    predictions = {
        name: list(zip(own['detection'], own['segmentation'], strict=True))
        for name, own in found.items()
    }
    figure = plot_predictions(scenes, predictions, FASHIONMNIST_CATEGORITES)
    return figure, CAPTION


@torch.no_grad()
def predict(cfg: Config, checkpoint: str) -> list:
    """Data samples of the first validation scenes, with predictions.

    Args:
        cfg (Config): Config of mmdet or mmseg.
        checkpoint (str): Weights of the whole model.
    """
    init_default_scope(cfg.default_scope)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about defaults of mmseg
        model = MODELS.build(cfg.model)
    load_checkpoint(model, checkpoint, 'cpu', logger='silent')
    with redirect_stdout(io.StringIO()):  # pycocotools says that it reads
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    model.eval()
    return model.test_step(
        pseudo_collate([dataset[index] for index in range(SHOWN_SCENES)])
    )


def _objects(sample: object) -> list[ShownObject]:
    found = sample.pred_instances.cpu()
    found = found[found.scores >= SHOWN_SCORE]
    # Without detections mmdet gives masks of size 0.
    masks = found.masks.numpy().reshape(-1, *sample.ori_shape).astype(bool)
    labels, boxes = found.labels.numpy(), found.bboxes.numpy()
    return list(zip(labels, boxes, masks, strict=True))


def _classes(sample: object) -> np.ndarray:
    return sample.pred_sem_seg.data[0].cpu().numpy()


@mpl.rc_context(STYLE)
def plot_predictions(
    scenes: Sequence[Scene],
    predictions: dict[str, Sequence[ShownScene]],
    classes: Sequence[str],
) -> Figure:
    """Draw the predictions from each backbone beside the ground truth.

    There are two rows for each scene, objects and classes of the pixels.

    Args:
        scenes (Sequence[Scene]): The scenes.
        predictions (dict): Name of the backbone -> what was found in each
            scene.
        classes (Sequence[str]): Names of the classes.
    """
    figure = Figure(figsize=(9.6, 4 * len(scenes) + 0.6), layout='constrained')
    grid = figure.subplots(
        2 * len(scenes), 1 + len(predictions), squeeze=False
    )
    for row, scene in enumerate(scenes):
        truth = [(o.label, o.corners, o.mask) for o in scene.objects]
        columns = [(truth, scene.semantic)]
        columns += [found[row] for found in predictions.values()]
        for column, (objects, pixels) in enumerate(columns):
            _draw_objects(grid[2 * row, column], scene.image, objects)
            _draw_classes(grid[2 * row + 1, column], scene.image, pixels)
    titles = ['ground truth', *predictions]
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=10)
    handles = [
        Patch(facecolor=color, edgecolor='#222222', label=name)
        for color, name in zip(SCENE_COLORS, classes, strict=True)
    ]
    figure.legend(handles=handles, loc='outside lower center', ncols=5)
    return figure


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
    axes.spines[:].set_visible(False)
