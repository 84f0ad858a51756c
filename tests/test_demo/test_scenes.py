"""Composed scenes: what is drawn, what is hidden, what is repeated."""

import numpy as np
import pytest

from demo import DATA_FILE
from demo.scenes import (
    MIN_VISIBLE,
    Scene,
    SceneObject,
    _place,
    _resize,
    compose_scene,
)
from mmunimoco.datasets.npz_images import NpzSplit, read_npz_split


@pytest.fixture(scope='module')
def source():
    return read_npz_split(DATA_FILE, 'train')


@pytest.fixture(scope='module')
def scenes(source):
    return [compose_scene(source, 'train', i) for i in range(40)]


def _white(labels=(3, 7)) -> NpzSplit:
    """Images that are object all over."""
    images = np.full((len(labels), 28, 28), 255, np.uint8)
    return NpzSplit(images, np.array(labels), np.arange(len(labels)) + 100)


def test_masks_do_not_overlap_and_boxes_are_tight(scenes):
    for scene in scenes:
        assert scene.image.shape == (128, 128, 3)
        assert scene.image.dtype == np.uint8
        covered = sum(item.mask.astype(int) for item in scene.objects)
        assert covered.max() == 1
        assert np.array_equal(scene.semantic > 0, covered > 0)
        for item in scene.objects:
            x, y, w, h = item.box
            inside = item.mask[y : y + h, x : x + w]
            assert inside.sum() == item.mask.sum()
            edges = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
            assert all(edge.any() for edge in edges)
            assert set(scene.semantic[item.mask]) == {item.label + 1}


def test_number_size_and_classes_vary(scenes):
    counts = {len(scene.objects) for scene in scenes}
    assert counts == {1, 2, 3, 4, 5}
    objects = [item for scene in scenes for item in scene.objects]
    assert {item.label for item in objects} == set(range(10))
    longest = [max(item.box[2:]) for item in objects]
    assert max(longest) <= 64
    assert max(longest) >= 60 and min(longest) <= 28


def test_mask_is_where_the_object_was_drawn():
    for index in range(10):
        scene = compose_scene(_white(), 'train', index)
        gray = scene.image.max(axis=2).astype(int)
        for item in scene.objects:
            assert item.source - 100 == {3: 0, 7: 1}[item.label]
            # White times a tint of at least three quarters; the border may
            # be mixed with what lies below.
            inner = item.mask.copy()
            for axis in (0, 1):
                for step in (-1, 1):
                    inner &= np.roll(item.mask, step, axis)
            assert gray[inner].min() >= 190
        assert gray[scene.semantic == 0].mean() < 130


def test_enclosed_dark_part_belongs_to_the_object():
    split = _white((0,))
    split.images[0, 10:18, 10:18] = 0
    scene = compose_scene(split, 'train', 1)
    last = scene.objects[-1]
    x, y, w, h = last.box
    assert last.mask.sum() == w * h


def test_covered_objects_stay_visible_to_the_promised_part():
    size, length = 100, 40
    patch = np.full((length, length), 200.0), np.ones((length, length))
    behind = np.zeros((size, size), bool)
    behind[30:70, 30:70] = True
    objects, areas = [SceneObject(0, 0, behind)], [1600]
    lowest = 1600
    for seed in range(200):
        rng = np.random.default_rng(seed)
        _, alpha = _place(rng, patch, objects, areas, size)
        assert alpha.sum() == 1600
        left = (behind & (alpha < 0.5)).sum()
        assert left >= MIN_VISIBLE * 1600
        lowest = min(lowest, left)
    # Covering happens, or the promise would mean nothing.
    assert lowest < 1200


def test_no_place_is_better_than_a_hidden_object():
    size = 64
    patch = np.ones((size, size)), np.ones((size, size))
    below = SceneObject(0, 0, np.ones((size, size), bool))
    rng = np.random.default_rng(0)
    assert _place(rng, patch, [below], [size * size], size) is None


def test_scene_depends_on_each_argument_and_nothing_else(source):
    def pixels(**changes):
        arguments = dict(split='train', index=3, seed=5)
        return compose_scene(source, **{**arguments, **changes}).image

    first = pixels()
    np.random.seed(1)
    assert np.array_equal(first, pixels())
    for change in (dict(split='test'), dict(index=4), dict(seed=6)):
        assert not np.array_equal(first, pixels(**change))
    assert pixels(size=160).shape == (160, 160, 3)


def test_resize_is_bilinear_with_pixel_centres():
    image = np.array([[0.0, 4.0], [8.0, 12.0]])
    expected = [0.0, 1.0, 3.0, 4.0]
    assert np.allclose(_resize(image, 4)[0], expected)
    assert np.allclose(_resize(image, 4)[:, 0], [0, 2, 6, 8])
    assert np.array_equal(_resize(image, 2), image)


def test_semantic_shows_the_visible_part():
    front = np.zeros((4, 4), bool)
    front[:2] = True
    scene = Scene(
        np.zeros((4, 4, 3), np.uint8),
        (SceneObject(2, 0, ~front), SceneObject(9, 1, front)),
    )
    assert scene.semantic.tolist() == [[10] * 4] * 2 + [[3] * 4] * 2


def test_wrong_arguments_are_told(source):
    with pytest.raises(ValueError, match="got 'val'"):
        compose_scene(source, 'val', 0)
    with pytest.raises(ValueError, match='64 .* or more, got 63'):
        compose_scene(source, 'train', 0, size=63)
