"""TwoViewAugment on a device."""

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS, TRANSFORMS
from PIL import Image

import mmunimoco  # noqa: F401
from mmunimoco.datasets import collate_encoded
from mmunimoco.models.encoded_images import decode_crops

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


def encode_images(folder, transform='LoadEncodedCrops'):
    """A batch of smooth JPEG files of several sizes, half with 4:2:0."""
    load = TRANSFORMS.build(dict(type=transform, scale=112))
    pack = TRANSFORMS.build(dict(type='PackInputs'))
    generator, samples = np.random.default_rng(0), []
    np.random.seed(0)
    for index in range(12):
        noise = generator.integers(0, 256, (9, 7, 3), np.uint8)
        size = (150 + 9 * index, 200 - 5 * index)
        path = folder / f'{index}.jpg'
        image = Image.fromarray(noise).resize(size, Image.BICUBIC)
        image.save(path, quality=92, subsampling=2 * (index % 2))
        samples.append(pack(load(dict(img_path=str(path), gt_label=index))))
    return collate_encoded(samples)


def test_decoding_equals_that_of_a_worker(device, tmp_path, record_property):
    inputs = encode_images(tmp_path)['inputs']
    got = decode_crops(inputs, device)
    assert got.device.type == device.type
    expected = torch.cat(encode_images(tmp_path, 'LoadTwoCrops')['inputs'])
    difference = (got.cpu().int() - expected.int()).abs().float()
    record_property('gray_levels_mean', f'{difference.mean():.3f}')
    record_property('gray_levels_max', f'{difference.max():.0f}')
    # nvJPEG does not interpolate the colours of 4:2:0 as libjpeg does.
    assert difference.max() <= (1 if device.type == 'cpu' else 40)
    assert difference.mean() < 2


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
