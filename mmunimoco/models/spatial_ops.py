"""Blur and crop of torchvision, with parameters for each image."""

import torch
from torch import Tensor
from torch.nn import functional


def gaussian_blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur each image with its own Gaussian; borders are mirrored.

    All images go through one depthwise convolution a direction.

    Args:
        images (Tensor): (N, C, H, W), floating point.
        sigma (Tensor): (N,) standard deviations in pixels.
        radius (int): Pixels that the kernel reaches to each side, less than
            H and W.

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
    """Cut a box from each image and resize it, bilinear and antialiased.

    Both directions are matrix products. The matrices hold Pillow's triangle
    filter, which does not look beyond the box.

    Args:
        images (Tensor): (N, C, H, W), floating point.
        boxes (Tensor): (N, 4) top, left, height, width; floating point.
        size (tuple[int, int]): Height and width of the results.

    Returns:
        Tensor: (N, C, *size).
    """
    top, left, height, width = boxes.unbind(dim=1)
    rows = _filter(top, height, images.shape[2], size[0])
    columns = _filter(left, width, images.shape[3], size[1])
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def _filter(start: Tensor, length: Tensor, pixels: int, size: int) -> Tensor:
    """(N, size, pixels): what each pixel gives to each of the results."""
    steps = torch.arange(max(size, pixels), device=start.device)
    scale = (length / size)[:, None, None]
    start, end = start[:, None, None], (start + length)[:, None, None]
    centers = start + (steps[:size, None] + 0.5) * scale
    places = steps[:pixels] + 0.5
    weights = 1 - (places - centers).abs() / scale.clamp(min=1)
    inside = (places > start) & (places < end)
    weights = weights.clamp_(min=0) * inside
    return weights / weights.sum(dim=2, keepdim=True)
