"""Colour operations of torchvision, with a factor for each image.

Images are (N, 3, H, W), RGB, floating point, of values 0 to 255; factors are
(N,) on the same device. Values are those of torchvision's functional forms,
which take one factor for a whole batch. kornia takes one an image, but
computes each operation for all images, chosen or not, and waits for the
device to find out which are.
"""

import torch
from torch import Tensor

WHITE = 255.0
_GRAY = (0.2989, 0.587, 0.114)  # of red, green and blue, as torchvision has it


def to_gray(images: Tensor) -> Tensor:
    """Brightness of each pixel, (N, 1, H, W)."""
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
    """Turn the hue.

    Value and chroma stay. From them and the hue a channel is the value less
    the chroma times a trapezoid of the hue, shifted for each channel.

    Args:
        images (Tensor): (N, 3, H, W), 0 to 255.
        shift (Tensor): (N,) in turns, -0.5 to 0.5.

    Returns:
        Tensor: (N, 3, H, W).
    """
    value = images.amax(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)
    hue = _hue(images, value, chroma).add_(_each(6 * shift))
    # 5, 3 and 1 for red, green and blue; a list would be waited for.
    start = 5 - 2 * torch.arange(3, device=images.device).view(1, 3, 1, 1)
    angle = (hue + start).remainder_(6)
    angle = torch.minimum(angle, 4 - angle).clamp_(0, 1)
    return torch.addcmul(value, angle, chroma, value=-1)


def _hue(images: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    """Hue in sixths of a turn, (N, 1, H, W); 0 for gray."""
    red, green, blue = images.split(1, dim=1)
    # Where there is no chroma, all differences are 0.
    scale = chroma.clamp(min=torch.finfo(images.dtype).tiny).reciprocal_()
    hue = torch.where(value == green, blue - red, red - green) * scale
    hue = hue.add_(4).sub_(2 * (value == green).to(hue.dtype))
    return torch.where(value == red, (green - blue) * scale, hue)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other, images, _each(factor)).clamp_(0, WHITE)


def _each(factor: Tensor) -> Tensor:
    return factor.view(-1, 1, 1, 1)
