"""Decode and crop a batch of JPEG files on the model's device.

``collate_encoded`` describes the batch. Images of similar size are decoded and
cropped together, in groups of limited memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torchvision
from mmengine.utils import digit_version
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from . import view_operations as ops

# Pixels of a group, each image padded to the largest: 0.5 GB as float32 RGB.
MAX_PIXELS = 2**27 // 3
_DECODES_LISTS = digit_version(torchvision.__version__) >= digit_version(
    '0.20.0'
)


def decode_crops(inputs: Mapping[str, Any], device: torch.device) -> Tensor:
    """Decode the images of a batch and cut two views from each.

    Boxes are resized with Pillow's bilinear filter, as
    ``LoadTwoCrops(antialias=True)`` does, but of the whole image, never of one
    that was decoded reduced.

    Args:
        inputs (Mapping): M encoded images and V decoded ones, from
            ``collate_encoded``.
        device (torch.device): nvJPEG decodes on a GPU, libjpeg on a CPU.

    Returns:
        Tensor: First views, then second views: (2 (M + V), 3, h, w) uint8,
        BGR, on the device.

    Raises:
        ValueError: If neither the device nor the CPU can decode an image;
            names the file.
    """
    boxes = inputs['boxes']
    count = len(boxes) + len(inputs['views'])
    scale = tuple(inputs['sizes'][0, 1].tolist())
    crops = torch.empty(
        (2, count, 3, *scale), dtype=torch.uint8, device=device
    )
    for group, images in decode_images(inputs, device):
        images = _pad(images)
        rows = inputs['rows'][group].to(device, non_blocking=True)
        drawn = boxes[group].to(device, torch.float32, non_blocking=True)
        for view, box in enumerate(drawn.unbind(dim=1)):
            cut = ops.resized_crop(images, box, scale)
            crops[view, rows] = cut.round_().clamp_(0, 255).byte().flip(1)
    if len(inputs['views']):
        rows = inputs['view_rows'].to(device)
        views = inputs['views'].to(device, non_blocking=True)
        crops[:, rows] = views.transpose(0, 1)
    return crops.flatten(0, 1)


def decode_images(
    inputs: Mapping[str, Any], device: torch.device
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Decode the encoded images of a batch, in groups of limited memory.

    Args:
        inputs (Mapping): From ``collate_encoded``.
        device (torch.device): Where to decode.

    Yields:
        tuple[list[int], list[Tensor]]: Indices among the encoded images, and
        the images, (3, h, w) uint8, RGB.

    Raises:
        ValueError: If an image cannot be decoded; names the file.
    """
    for group in _groups(inputs['sizes'][:, 0]):
        yield group, _decode(inputs, group, device)


def _groups(sizes: Tensor) -> Iterator[list[int]]:
    """Yield the indices of images (M, 2) that are decoded together."""
    group, height, width = [], 0, 0
    order = sizes.prod(dim=1).argsort()
    for index, (high, wide) in zip(
        order.tolist(), sizes[order].tolist(), strict=True
    ):
        height, width = max(height, high), max(width, wide)
        if group and (len(group) + 1) * height * width > MAX_PIXELS:
            yield group
            group, height, width = [], high, wide
        group.append(index)
    if group:
        yield group


def _decode(
    inputs: Mapping, group: Sequence[int], device: torch.device
) -> list[Tensor]:
    """Decode images to (3, h, w) uint8, RGB, on the device."""
    offsets = inputs['offsets'].tolist()
    contents = [
        inputs['content'][offsets[index] : offsets[index + 1]]
        for index in group
    ]
    try:
        return _decode_on(contents, device)
    except RuntimeError:  # does not say of which image
        images = []
    for index, content in zip(group, contents, strict=True):
        try:
            images.append(_decode_one(content, device))
        except RuntimeError as error:
            raise ValueError(
                f'{inputs["names"][index]} is a damaged JPEG: neither the GPU '
                f'nor the CPU can decode it ({error}). Remove or replace it; '
                'LoadTwoCrops in place of LoadEncodedCrops, which does not '
                'decode in the data loader, lets SkipBrokenImages replace it'
            ) from error
    return images


def _decode_one(content: Tensor, device: torch.device) -> Tensor:
    """Decode on the device, or on the CPU what that cannot read."""
    try:
        return _decode_on([content], device)[0]
    except RuntimeError:
        return _decode_on([content], torch.device('cpu'))[0].to(device)


def _decode_on(contents: list[Tensor], device: torch.device) -> list[Tensor]:
    mode = ImageReadMode.RGB
    if device.type == 'cuda' and _DECODES_LISTS:
        return decode_jpeg(contents, mode, device=device)
    return [decode_jpeg(x, mode, device=device) for x in contents]


def _pad(images: list[Tensor]) -> Tensor:
    """Stack images of several sizes, (M, 3, H, W) float32, zeros beyond."""
    shape = [max(image.shape[axis] for image in images) for axis in (1, 2)]
    padded = images[0].new_zeros((len(images), 3, *shape), dtype=torch.float32)
    for target, image in zip(padded, images, strict=True):
        target[:, : image.shape[1], : image.shape[2]].copy_(image)
    return padded
