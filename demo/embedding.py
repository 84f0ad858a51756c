"""The test images in feature space, projected to two dimensions."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint, set_random_seed
from mmpretrain.datasets.categories import FASHIONMNIST_CATEGORITES
from mmpretrain.registry import MODELS
from sklearn.manifold import TSNE
from torch.nn.functional import normalize

from mmunimoco.engine.pretrained_init import NO_CHECKPOINT
from mmunimoco.evaluation.features import evaluating, extract_batch, labels_of

from .figures import CLASS_COLORS, STYLE

CAPTION = (
    't-SNE of the test images, coloured by class; near images have similar '
    'features. All panels use the same settings; axes have no unit.'
)


def draw_embedding(jobs: Sequence) -> tuple[Figure, str]:
    """Embed the test images with each backbone but the baselines.

    Returns:
        tuple[Figure, str]: The figure and its caption.
    """
    places = {}
    for job in jobs:
        if job.evaluation == 'knn' and job.variant.series != 'cross-entropy':
            features, labels = extract_features(
                job.cfg, job.checkpoint(), job.seed
            )
            places[job.variant.name] = embed(features, job.seed)
    return plot_embedding(places, labels, FASHIONMNIST_CATEGORITES), CAPTION


def extract_features(
    cfg: Config, checkpoint: str, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Features of the test images.

    Args:
        cfg (Config): Config of the kNN test, for model and test data.
        checkpoint (str): Weights of the model, or 'none' for random ones.
        seed (int): Seed of random weights. Defaults to 0.

    Returns:
        tuple[np.ndarray, np.ndarray]: (N, D) float32 L2-normalised backbone
        features and (N,) int64 classes.
    """
    init_default_scope('mmpretrain')
    set_random_seed(seed)
    # As the Runner does, or images would not be normalised.
    model = MODELS.build(
        dict(cfg.model, data_preprocessor=cfg.data_preprocessor)
    )
    if checkpoint == NO_CHECKPOINT:
        model.init_weights()
    else:
        load_checkpoint(model, checkpoint, 'cpu', logger='silent')
    loader = Runner.build_dataloader(dict(cfg.test_dataloader))
    features, labels = [], []
    with evaluating(model):
        for batch in loader:
            batch_features, samples = extract_batch(model, batch)
            features.append(normalize(batch_features, dim=1))
            labels.append(labels_of(samples))
    return torch.cat(features).numpy(), torch.cat(labels).numpy()


def embed(features: np.ndarray, seed: int) -> np.ndarray:
    """Project (N, D) features to (N, 2) float32 with t-SNE."""
    tsne = TSNE(
        n_components=2,
        # 30 is the usual choice; it must stay below N.
        perplexity=min(30.0, (len(features) - 1) / 3),
        init='pca',
        learning_rate='auto',
        random_state=seed,
    )
    return tsne.fit_transform(features).astype(np.float32)


@mpl.rc_context(STYLE)
def plot_embedding(
    places: dict[str, np.ndarray], labels: np.ndarray, classes: Sequence[str]
) -> Figure:
    """Draw the embedded images, one panel for each backbone.

    Args:
        places (dict): Name of the backbone -> (N, 2) coordinates.
        labels (np.ndarray): (N,) classes.
        classes (Sequence[str]): Names of the classes.
    """
    rows = -(-len(places) // 2)
    figure = Figure(figsize=(9.6, 4.6 * rows + 0.2), layout='constrained')
    panels = list(figure.subplots(rows, 2, squeeze=False).flat)
    shown = panels[: len(places)]
    for axes, (name, points) in zip(shown, places.items(), strict=True):
        _draw_points(axes, points, labels, classes)
        axes.set_title(name)
    for unused in panels[len(places) :]:
        unused.set_visible(False)
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc='outside lower center',
        ncols=5,
        markerscale=3,
    )
    return figure


def _draw_points(
    axes: Axes, points: np.ndarray, labels: np.ndarray, classes: Sequence[str]
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
