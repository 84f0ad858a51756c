"""Composed scenes: what is drawn, hidden and repeatable."""

import numpy as np
import pytest

from demo import DATA_FILE
from demo.scenes import MIN_VISIBLE, SceneObject, _place, compose_scene
from mmunimoco.datasets.npz_images import NpzSplit, read_npz_split


@pytest.fixture(scope='module')
def source():
    return read_npz_split(DATA_FILE, 'train')


@pytest.fixture(scope='module')
def scenes(source):
    return [compose_scene(source, 'train', i) for i in range(40)]


def _white(labels=(3, 7)) -> NpzSplit:
    """Images that are white everywhere."""
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
            rows, columns = np.nonzero(item.mask)
            assert (x, x + w) == (columns.min(), columns.max() + 1)
            assert (y, y + h) == (rows.min(), rows.max() + 1)
            assert item.corners == (x, y, x + w, y + h)
            assert set(scene.semantic[item.mask]) == {item.label + 1}


def test_number_size_and_classes_vary(scenes):
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3, 4, 5}
    objects = [item for scene in scenes for item in scene.objects]
    assert {item.label for item in objects} == set(range(10))
    longest = [max(item.box[2:]) for item in objects]
    assert 60 <= max(longest) <= 64 and min(longest) <= 28


def test_mask_is_where_the_object_was_drawn():
    for index in range(10):
        scene = compose_scene(_white(), 'train', index)
        gray = scene.image.max(axis=2).astype(int)
        for item in scene.objects:
            assert item.source - 100 == {3: 0, 7: 1}[item.label]
            # White times a tint of at least 0.75; pixels at the border are
            # mixed with what lies below.
            inner = item.mask.copy()
            for axis in (0, 1):
                for step in (-1, 1):
                    inner &= np.roll(item.mask, step, axis)
            assert gray[inner].min() >= 190
        assert gray[scene.semantic == 0].mean() < 130


def test_enclosed_dark_part_belongs_to_the_object():
    split = _white((0,))
    split.images[0, 10:18, 10:18] = 0
    front = compose_scene(split, 'train', 1).objects[-1]
    assert front.mask.sum() == front.box[2] * front.box[3]


def test_covered_objects_stay_visible():
    size, length = 100, 40
    patch = np.full((length, length), 200.0), np.ones((length, length))
    behind = np.zeros((size, size), bool)
    behind[30:70, 30:70] = True
    below = SceneObject(0, 0, behind)
    visible = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        _, alpha = _place(rng, patch, [below], [1600], size)
        assert alpha.sum() == 1600
        visible.append((behind & (alpha < 0.5)).sum() / 1600)
    # Objects are covered, but never further than promised.
    assert MIN_VISIBLE <= min(visible) < 0.75
    everywhere = np.ones((size, size)), np.ones((size, size))
    assert _place(rng, everywhere, [below], [1600], size) is None


def test_scene_depends_on_its_arguments_alone(source):
    def pixels(**changes):
        arguments = dict(split='train', index=3, seed=5)
        return compose_scene(source, **{**arguments, **changes}).image

    first = pixels()
    np.random.seed(1)
    assert np.array_equal(first, pixels())
    for change in (dict(split='test'), dict(index=4), dict(seed=6)):
        assert not np.array_equal(first, pixels(**change))
    assert pixels(size=160).shape == (160, 160, 3)


def test_wrong_arguments_are_named(source):
    with pytest.raises(ValueError, match="got 'val'"):
        compose_scene(source, 'val', 0)
    with pytest.raises(ValueError, match='64 .* or more, got 63'):
        compose_scene(source, 'train', 0, size=63)
