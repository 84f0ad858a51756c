"""Cases of ``test_triton_kernels.py``, for Triton's interpreter."""

import pytest
import torch
from mmpretrain.registry import MODELS
from triton_cases import nan_where_nothing_was_stored  # noqa: F401

import mmunimoco  # noqa: F401
from mmunimoco.models import two_view_augment

NORM = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
OFF = dict(jitter_prob=0.0, gray_prob=0.0, blur_prob=0.0, flip_prob=0.0)
# Little blur, because the interpreter takes long for wide kernels.
ALL = dict.fromkeys(OFF, 1.0) | dict(blur_sigma=(0.1, 0.7))
BLUR = dict(OFF, blur_prob=1.0)
ONE_BLOCK, TWO_BLOCKS, THREE_BLOCKS = (13, 17), (15, 21), (25, 21)
# Options and size of the views.
CASES = {
    'published': (dict(to_rgb=True, **NORM), TWO_BLOCKS),
    'nothing': (OFF, ONE_BLOCK),
    'bgr in, bgr out': (
        dict(ALL, input_order='bgr', gray_prob=0.3, **NORM),
        ONE_BLOCK,
    ),
    'rgb in, bgr out': (
        dict(ALL, rgb_to_bgr=True, gray_prob=0.0, blur_prob=0.5),
        ONE_BLOCK,
    ),
    'one mean for all channels': (
        dict(OFF, mean=[127.5], std=[50.0]),
        ONE_BLOCK,
    ),
    'jitter of any strength': (
        dict(OFF, jitter_prob=1, brightness=1, contrast=2, saturation=3)
        | dict(hue=0.5),
        THREE_BLOCKS,
    ),
    'hardly any blur': (dict(BLUR, blur_sigma=(0.01, 0.2)), ONE_BLOCK),
    'blur as wide as the views': (
        dict(BLUR, blur_sigma=(1.0, 9.0)),
        (4, 7),
    ),
    'one row': (BLUR, (1, 9)),
    'crop': (
        dict(crop=dict(scale=TWO_BLOCKS), blur_sigma=(0.1, 0.7), **NORM),
        TWO_BLOCKS,
    ),
}


def draw_images(size, n=3):
    """Noise, flat gray, black and white, and one pure colour."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, n, 3, *size), generator=rng).byte()
    images[0, 0] = images[0, 0, :1]
    images[0, 1, :, :, :6], images[0, 1, :, :, 6:] = 0, 255
    images[1, 0] = torch.tensor([255, 255, 0])[:, None, None].byte()
    return list(images)


@pytest.fixture
def both(monkeypatch):
    """Return a function that augments by the kernels and without."""

    def run(options, inputs):
        built = MODELS.build(
            dict(type='TwoViewAugment', fused=True, **options)
        )
        made = []
        for kernels in (True, False):
            monkeypatch.setattr(
                two_view_augment,
                'uses_kernels',
                lambda *_, kernels=kernels: kernels,
            )
            torch.manual_seed(0)
            views = built(dict(inputs=inputs), training=True)['inputs']
            made.append(torch.cat(views))
        return made

    return run


@pytest.mark.parametrize('name', CASES)
def test_equals_the_plain_operations(name, both):
    """Within a thousandth of a gray level."""
    options, size = CASES[name]
    inputs = draw_images((20, 23) if 'crop' in options else size)
    if 'crop' in options:
        inputs = inputs[0]
    got, expected = both(options, inputs)
    assert got.shape == (6, 3, *size)
    largest = 1e-3 / min(options.get('std', [1]))
    torch.testing.assert_close(got, expected, rtol=0, atol=largest)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_views_of_another_dtype(dtype, both):
    """Of float crops that are not contiguous."""
    options = dict(ALL, dtype=dtype, blur_prob=0.5, **NORM)
    inputs = [x.float().transpose(2, 3) for x in draw_images((9, 7))]
    got, expected = both(options, inputs)
    assert got.dtype == getattr(torch, dtype)
    torch.testing.assert_close(got, expected)
    if dtype == 'float16':  # the interpreter cuts bfloat16 off
        assert (got == expected).float().mean() > 0.99
