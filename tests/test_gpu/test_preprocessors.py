"""TwoViewAugment on a device."""

import pytest
import torch
from mmpretrain.registry import MODELS

NORM = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])


def build(device, **options):
    config = dict(type='TwoViewAugment', to_rgb=True, **NORM, **options)
    return MODELS.build(config).to(device)


def draw_images(n, size):
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8)


def augment(preprocessor, inputs):
    torch.manual_seed(1)
    return preprocessor(dict(inputs=inputs), training=True)['inputs']


def test_views_are_those_of_the_cpu(device):
    """The same random numbers, and the same values to rounding."""
    views = [draw_images(16, (40, 48)) for _ in range(2)]
    got = augment(build(device), views)
    expected = augment(build('cpu'), views)
    for view, other in zip(got, expected, strict=True):
        assert view.device.type == device.type
        # In units of a standard deviation: a fifth of a level.
        torch.testing.assert_close(view.cpu(), other, rtol=0, atol=4e-3)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_dtype(device, dtype):
    views = [draw_images(4, (32, 32)) for _ in range(2)]
    got = augment(build(device, dtype=dtype), views)
    assert {view.dtype for view in got} == {getattr(torch, dtype)}
    assert all(view.isfinite().all() for view in got)


def test_images_that_are_on_the_device(device):
    images = draw_images(10, (32, 32))
    indices = torch.tensor([3, 9, 0, 3])
    made = []
    for place in (device, torch.device('cpu')):
        preprocessor = build(place, crop=dict(scale=32), blur_prob=0.0)
        preprocessor.keep_images(images)
        assert preprocessor.images.device.type == place.type
        made.append(torch.cat(augment(preprocessor, indices)).cpu())
    torch.testing.assert_close(*made, rtol=0, atol=4e-3)


@pytest.mark.gpu
@pytest.mark.parametrize('crop', [None, dict(scale=32)])
def test_the_host_does_not_wait(crop):
    preprocessor = build('cuda', crop=crop)
    images = draw_images(8, (32, 32)).pin_memory()
    inputs = images if crop else [images, images]
    expected = augment(preprocessor, inputs)
    torch.cuda.set_sync_debug_mode('error')
    try:
        got = augment(preprocessor, inputs)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert all(map(torch.equal, got, expected))
