"""Image operations with parameters for each image of a batch.

Colours, blur and crop as in torchvision, whose functional forms take one
factor for a whole batch. kornia takes one per image, but computes each
operation for all images and synchronises with the device to select.

Images are (N, 3, H, W), RGB, floating point, 0 to 255; factors are (N,) on
the same device. The ``draw_*`` functions draw their random parameters on the
CPU, so the host knows which images undergo which operation without waiting.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.dist import get_rank
from torch import Tensor
from torch.nn import functional

WHITE = 255.0
_GRAY = (0.2989, 0.587, 0.114)  # weights of red, green and blue (torchvision)


def to_gray(images: Tensor) -> Tensor:
    """Return the luma of each pixel, shape (N, 1, H, W)."""
    red, green, blue = images.split(1, dim=1)
    gray = red * _GRAY[0]
    return gray.add_(green, alpha=_GRAY[1]).add_(blue, alpha=_GRAY[2])


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black; a factor of 1 changes nothing."""
    return (images * _each(factor)).clamp_(0, WHITE)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean gray of each image."""
    gray = to_gray(images).mean(dim=(2, 3), keepdim=True)
    return _blend(images, gray, factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the gray image."""
    return _blend(images, to_gray(images), factor)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Rotate the hue; value and chroma stay.

    In HSV a channel is value - chroma * f(hue), where f is a trapezoid with
    another offset for each channel.

    Args:
        images (Tensor): (N, 3, H, W), 0 to 255.
        shift (Tensor): (N,) in turns, in [-0.5, 0.5].

    Returns:
        Tensor: (N, 3, H, W).
    """
    value = images.amax(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)
    hue = _hue(images, value, chroma).add_(_each(6 * shift))
    # 5, 3, 1 for red, green, blue; made on the device, as a copy would block.
    start = 5 - 2 * torch.arange(3, device=images.device).view(1, 3, 1, 1)
    angle = (hue + start).remainder_(6)
    angle = torch.minimum(angle, 4 - angle).clamp_(0, 1)
    return torch.addcmul(value, angle, chroma, value=-1)


def _hue(images: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    """Return the hue in sixths of a turn, (N, 1, H, W); 0 for gray."""
    red, green, blue = images.split(1, dim=1)
    # Without chroma all differences are 0, so the scale does not matter.
    scale = chroma.clamp(min=torch.finfo(images.dtype).tiny).reciprocal_()
    hue = torch.where(value == green, blue - red, red - green) * scale
    hue = hue.add_(4).sub_(2 * (value == green).to(hue.dtype))
    return torch.where(value == red, (green - blue) * scale, hue)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other, images, _each(factor)).clamp_(0, WHITE)


def _each(factor: Tensor) -> Tensor:
    return factor.view(-1, 1, 1, 1)


def gaussian_blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur each image with its own Gaussian, with reflected borders.

    Separable: one depthwise convolution per direction for all images.

    Args:
        images (Tensor): (N, C, H, W), floating point.
        sigma (Tensor): (N,) standard deviations in pixels.
        radius (int): Half width of the kernel in pixels, less than H and W.

    Returns:
        Tensor: (N, C, H, W).
    """
    n, channels, height, width = images.shape
    if n == 0:
        return images
    steps = torch.arange(-radius, radius + 1, device=images.device)
    kernel = (-0.5 * (steps / sigma[:, None]) ** 2).softmax(dim=1)
    kernel = kernel.to(images.dtype).repeat_interleave(channels, dim=0)
    planes = images.reshape(1, n * channels, height, width)
    planes = functional.pad(planes, [radius] * 4, mode='reflect')
    groups = n * channels
    planes = functional.conv2d(planes, kernel[:, None, :, None], groups=groups)
    planes = functional.conv2d(planes, kernel[:, None, None], groups=groups)
    return planes.view(n, channels, height, width)


def resized_crop(
    images: Tensor, boxes: Tensor, size: tuple[int, int]
) -> Tensor:
    """Crop a box of each image and resize it, bilinear and antialiased.

    Each direction is a matrix product with Pillow's triangle filter, which
    does not read pixels outside the box.

    Args:
        images (Tensor): (N, C, H, W), floating point.
        boxes (Tensor): (N, 4) top, left, height, width in pixels, float.
        size (tuple[int, int]): Height and width of the output.

    Returns:
        Tensor: (N, C, *size).
    """
    top, left, height, width = boxes.unbind(dim=1)
    rows = _filter(top, height, images.shape[2], size[0])
    columns = _filter(left, width, images.shape[3], size[1])
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def _filter(start: Tensor, length: Tensor, pixels: int, size: int) -> Tensor:
    """Return the weight of each input pixel for each output, (N, out, in)."""
    steps = torch.arange(max(size, pixels), device=start.device)
    scale = (length / size)[:, None, None]
    start, end = start[:, None, None], (start + length)[:, None, None]
    centers = start + (steps[:size, None] + 0.5) * scale
    places = steps[:pixels] + 0.5
    weights = 1 - (places - centers).abs() / scale.clamp(min=1)
    inside = (places > start) & (places < end)
    weights = weights.clamp_(min=0) * inside
    return weights / weights.sum(dim=2, keepdim=True)


@dataclass
class ViewParameters:
    """Random parameters of M views, on the CPU.

    Attributes:
        flipped (Tensor): (M,) bool.
        jittered (Tensor): (M,) bool.
        orders (Tensor): (M, 4) int64, the operations of each view in turn.
        factors (Tensor): (4, M) float32, of each operation.
        gray (Tensor): (M,) bool.
        blurred (Tensor): (M,) bool.
        sigma (Tensor): (M,) float32, of the blur, in pixels.
    """

    flipped: Tensor
    jittered: Tensor
    orders: Tensor
    factors: Tensor
    gray: Tensor
    blurred: Tensor
    sigma: Tensor


def draw_generator() -> torch.Generator:
    """Return a generator for one batch, seeded by torch's CPU generator.

    It differs between ranks: mmengine may give all ranks the same seed, and
    they must not repeat each other's augmentations.
    """
    seed = int(torch.randint(2**62, ()))
    return torch.Generator().manual_seed(seed + get_rank())


def draw_chosen(
    n: int, probability: float, generator: torch.Generator
) -> Tensor:
    """Choose each of n images independently; returns (n,) bool."""
    return torch.rand(n, generator=generator) < probability


def draw_uniform(
    n: int, bounds: Sequence[float], generator: torch.Generator
) -> Tensor:
    """Draw (n,) float32 uniformly between two bounds."""
    low, high = bounds
    return low + (high - low) * torch.rand(n, generator=generator)


def draw_orders(n: int, operations: int, generator: torch.Generator) -> Tensor:
    """Draw a random order for each image; returns (n, operations) int64."""
    return torch.rand(n, operations, generator=generator).argsort(dim=1)


def draw_boxes(
    n: int,
    size: tuple[int, int],
    area: Sequence[float],
    aspect: Sequence[float],
    generator: torch.Generator,
    attempts: int = 10,
) -> Tensor:
    """Draw the boxes of ``RandomResizedCrop`` (torchvision, mmpretrain).

    Args:
        n (int): Number of boxes.
        size (tuple[int, int]): Height and width of the images.
        area (Sequence[float]): Bounds of the box area relative to the image.
        aspect (Sequence[float]): Bounds of width / height.
        generator (torch.Generator): CPU generator.
        attempts (int): Boxes to try before the largest central one of an
            allowed aspect ratio is taken. Defaults to 10.

    Returns:
        Tensor: (n, 4) float32 integers: top, left, height, width.
    """
    height, width = size
    tries = n * attempts
    areas = draw_uniform(tries, area, generator) * (height * width)
    logs = [math.log(bound) for bound in aspect]
    ratios = draw_uniform(tries, logs, generator).exp()
    extents = torch.stack([areas / ratios, areas * ratios], dim=1)
    extents = extents.sqrt_().round_().view(n, attempts, 2)
    whole = torch.tensor([height, width])
    fits = ((extents > 0) & (extents <= whole)).all(dim=2)
    # The first box that fits; the appended central one always does.
    fits = torch.cat([fits, torch.ones(n, 1, dtype=torch.bool)], dim=1)
    central = torch.tensor(_central_extent(size, aspect)).expand(n, 1, 2)
    extents = torch.cat([extents, central], dim=1)
    chosen = fits.to(torch.uint8).argmax(dim=1)
    extents = extents[torch.arange(n), chosen]
    room = whole - extents
    places = torch.rand(n, 2, generator=generator) * (room + 1)
    middle = (room / 2).floor()
    is_central = (chosen == attempts)[:, None]
    starts = torch.where(is_central, middle, places.floor_().minimum(room))
    return torch.cat([starts, extents], dim=1)


def _central_extent(size: tuple[int, int], aspect: Sequence[float]) -> list:
    height, width = size
    if width / height < min(aspect):
        height = round(width / min(aspect))
    elif width / height > max(aspect):
        width = round(height * max(aspect))
    return [float(height), float(width)]
