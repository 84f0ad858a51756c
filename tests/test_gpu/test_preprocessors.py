"""TwoViewAugment on a device."""

import pytest
import torch
from mmpretrain.registry import MODELS

import mmunimoco  # noqa: F401

NORM = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
# In units of a standard deviation: a fifth of a gray level.
TOLERANCE = dict(rtol=0, atol=4e-3)


def build(device, **options):
    config = dict(type='TwoViewAugment', to_rgb=True, **NORM, **options)
    return MODELS.build(config).to(device)


def draw_images(n, size):
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8)


def augment(preprocessor, inputs):
    torch.manual_seed(1)
    return preprocessor(dict(inputs=inputs), training=True)['inputs']


@pytest.fixture(params=[False, True], ids=['plain', 'fused'])
def fused(request):
    if request.param:
        pytest.importorskip('triton', minversion='3.0')
    return request.param


@pytest.mark.parametrize('options', [{}, dict(input_order='rgb')])
def test_views_equal_those_of_the_cpu(options, fused, device):
    """From the same random numbers."""
    views = [draw_images(16, (40, 48)) for _ in range(2)]
    got = augment(build(device, fused=fused, **options), views)
    expected = augment(build('cpu', **options), views)
    for view, other in zip(got, expected, strict=True):
        assert view.device.type == device.type
        torch.testing.assert_close(view.cpu(), other, **TOLERANCE)
    half = build(device, fused=fused, dtype='bfloat16', **options)
    half = augment(half, views)
    for view, other in zip(half, got, strict=True):
        torch.testing.assert_close(view, other.bfloat16())


def test_images_kept_on_the_device(fused, device):
    images = draw_images(10, (32, 32))
    indices = torch.tensor([3, 9, 0, 3])
    made = []
    for place in (device, torch.device('cpu')):
        preprocessor = build(
            place, crop=dict(scale=32), blur_prob=0.0, fused=fused
        )
        preprocessor.keep_images(images)
        assert preprocessor.images.device.type == place.type
        made.append(torch.cat(augment(preprocessor, indices)).cpu())
    torch.testing.assert_close(*made, **TOLERANCE)


@pytest.mark.gpu
@pytest.mark.parametrize('crop', [None, dict(scale=32)])
def test_host_never_waits(crop, fused):
    preprocessor = build('cuda', crop=crop, fused=fused)
    images = draw_images(8, (32, 32)).pin_memory()
    inputs = images if crop else [images, images]
    expected = augment(preprocessor, inputs)
    torch.cuda.set_sync_debug_mode('error')
    try:
        got = augment(preprocessor, inputs)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert all(map(torch.equal, got, expected))
