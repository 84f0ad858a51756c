"""Pictures of the demo."""

import io

import numpy as np
import pytest
from PIL import Image

from demo.embedding import embed, plot_embedding
from demo.figures import CLASS_COLORS, figure_png
from demo.predictions import SCENE_COLORS, plot_predictions
from demo.scenes import Scene, SceneObject

CLASSES = [f'class {i}' for i in range(10)]


def colors_of(figure) -> np.ndarray:
    picture = Image.open(io.BytesIO(figure_png(figure, 'A caption')))
    assert picture.info['Description'] == 'A caption'
    pixels = np.asarray(picture.convert('RGB')).reshape(-1, 3)
    return np.unique(pixels, axis=0).astype(float)


def test_embedding_separates_groups_and_repeats():
    rng = np.random.default_rng(0)
    centres = np.repeat(100 * np.eye(3, 16), 20, axis=0)
    features = (centres + rng.normal(size=(60, 16))).astype(np.float32)
    places = embed(features, seed=0)
    groups = places.reshape(3, 20, 2)
    middles = groups.mean(axis=1)
    spread = np.abs(groups - middles[:, None]).max()
    gaps = np.linalg.norm(middles - np.roll(middles, 1, axis=0), axis=1)
    assert gaps.min() > spread
    np.testing.assert_array_equal(embed(features, seed=0), places)


@pytest.mark.parametrize('panels', [1, 4])
def test_embedding_shows_every_class_in_its_color(panels):
    labels = np.repeat(np.arange(10), 30)
    rng = np.random.default_rng(0)
    centres = rng.permutation(10)[labels][:, None] * [30.0, 10.0]
    points = centres + rng.normal(size=(300, 2))
    places = {f'backbone {i}': points for i in range(panels)}
    colors = colors_of(plot_embedding(places, labels, CLASSES))
    for color in CLASS_COLORS:
        rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
        # The frames of the names are drawn over white at 85 %.
        mixed = 0.85 * rgb + 0.15 * 255
        assert np.abs(colors - mixed).max(1).min() < 6, color


def test_predictions_are_drawn_in_the_colors_of_their_classes():
    mask = np.zeros((64, 64), bool)
    mask[10:40, 20:50] = True
    scene = Scene(np.zeros((64, 64, 3), np.uint8), (SceneObject(3, 0, mask),))
    found = [(5, (20.0, 10.0, 50.0, 40.0), mask)]
    pixels = np.full((64, 64), 7, np.uint8)
    colors = colors_of(
        plot_predictions([scene], dict(name=[(found, pixels)]), CLASSES)
    )
    # Of the true object, the detection and its pixels; there is no other.
    for label, drawn in ((3, True), (5, True), (6, True), (7, False)):
        full = 255 * SCENE_COLORS[label]
        near = np.abs(colors - (full if label == 6 else 0.5 * full))
        assert (near.max(1).min() < 8) == drawn, label
