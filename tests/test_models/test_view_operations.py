"""Each operation against torchvision's functional form, image by image."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from mmunimoco.models import view_operations as color_ops
from mmunimoco.models.view_operations import gaussian_blur, resized_crop

FACTORS = torch.tensor([0.6, 0.83, 1.0, 1.17, 1.4, 0.6, 1.4, 0.7])
SHIFTS = torch.tensor([-0.1, -0.03, 0.0, 0.04, 0.1, -0.5, 0.5, 0.25])


@pytest.fixture(scope='module')
def images():
    """(8, 3, 24, 30) of 0 to 255: noise, smooth, gray, black, white, pure."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 3, 24, 30), generator=rng)
    small = torch.rand(2, 3, 3, 4, generator=rng)
    smooth = torch.nn.functional.interpolate(small, (24, 30), mode='bilinear')
    images[2:4] = (255 * smooth).long()
    images[4] = images[4, :1]
    images[5] = torch.tensor([0, 255, 128])[:, None, None]
    images[6, :, :12], images[6, :, 12:] = 0, 255
    images[7] = torch.tensor([255, 255, 0])[:, None, None]
    return images.float()


@pytest.mark.parametrize('name', ['brightness', 'contrast', 'saturation'])
def test_factors(images, name):
    ours = getattr(color_ops, f'adjust_{name}')(images, FACTORS)
    theirs = getattr(reference, f'adjust_{name}')
    for image, factor, got in zip(images, FACTORS, ours, strict=True):
        expected = 255 * theirs(image / 255, factor.item())
        torch.testing.assert_close(got, expected, rtol=0, atol=0.01)
        rounded = theirs(image.byte(), factor.item()).float()
        assert (got - rounded).abs().max() <= 2


def test_hue(images):
    ours = color_ops.adjust_hue(images, SHIFTS)
    for image, shift, got in zip(images, SHIFTS, ours, strict=True):
        expected = 255 * reference.adjust_hue(image / 255, shift.item())
        torch.testing.assert_close(got, expected, rtol=0, atol=0.02)
    assert (ours[0] - images[0]).abs().max() > 20


def test_gray(images):
    ours = color_ops.to_gray(images).expand_as(images)
    expected = 255 * reference.rgb_to_grayscale(images / 255, 3)
    torch.testing.assert_close(ours, expected, rtol=0, atol=0.01)


def test_operations_leave_their_input(images):
    before = images.clone()
    for operation in (
        color_ops.adjust_brightness,
        color_ops.adjust_contrast,
        color_ops.adjust_saturation,
        color_ops.adjust_hue,
    ):
        operation(images, FACTORS / 4)
        assert torch.equal(images, before)


def test_blur(images):
    sigmas = torch.linspace(0.1, 2, len(images))
    ours = gaussian_blur(images, sigmas, radius=8)
    for image, sigma, got in zip(images, sigmas, ours, strict=True):
        expected = reference.gaussian_blur(image, 23, sigma.item())
        assert (got - expected).abs().max() < 0.1


def test_blur_is_near_to_pillows():
    """The published blur, three box filters; borders are its own too."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 12, 3), np.uint8)
    image = Image.fromarray(pixels).resize((96, 96), Image.BILINEAR)
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    for sigma in (0.5, 1.0, 2.0):
        blurred = image.filter(ImageFilter.GaussianBlur(sigma))
        theirs = torch.from_numpy(np.array(blurred)).permute(2, 0, 1)
        ours = gaussian_blur(tensor, torch.tensor([sigma]), 8)[0]
        difference = (ours - theirs)[:, 8:-8, 8:-8].abs()
        assert difference.max() <= 3 and difference.mean() < 1


def test_no_images():
    empty = torch.zeros(0, 3, 8, 8)
    assert gaussian_blur(empty, torch.zeros(0), 3).shape == empty.shape
    assert color_ops.adjust_hue(empty, torch.zeros(0)).shape == empty.shape


@pytest.mark.parametrize('size', [(32, 32), (12, 40), (5, 7)])
def test_resized_crop(images, size):
    """Larger, smaller and mixed; against Pillow, which rounds."""
    boxes = torch.tensor(
        [[0, 0, 24, 30], [3, 5, 10, 12], [23, 29, 1, 1], [4, 0, 20, 7]]
    ).float()
    ours = resized_crop(images[:4], boxes, size)
    for image, box, got in zip(images, boxes.int().tolist(), ours):  # noqa: B905
        pil = reference.to_pil_image(image.byte())
        expected = reference.resized_crop(
            pil, *box, size, InterpolationMode.BILINEAR
        )
        expected = reference.pil_to_tensor(expected).float()
        assert (got - expected).abs().max() <= 1.01
