"""Identify the ResNet that a state dict belongs to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mmpretrain.models import ResNet, ResNet_CIFAR
from torch import Tensor

from mmunimoco.utils.checkpoint import compare_shapes, shorten

# Keys of a plain ResNet without fc in torchvision, timm and mmpretrain.
_NORM = r'(?:weight|bias|running_mean|running_var|num_batches_tracked)'
RESNET_KEY = (
    rf'(?:conv1\.weight|bn1\.{_NORM}|layer[1-4]\.\d+\.(?:conv[1-3]\.weight|'
    rf'bn[1-3]\.{_NORM}|downsample\.0\.weight|downsample\.1\.{_NORM}))'
)


@dataclass(frozen=True)
class ResNetShape:
    """Depth and widths of a plain ResNet.

    Attributes:
        depth (int): 18, 34, 50, 101 or 152.
        stem_channels (int): Output channels of the first convolution.
        base_channels (int): Channels of the blocks in the first stage.
        stem_kernel (int): 7, or 3 for images of CIFAR's size.
    """

    depth: int
    stem_channels: int = 64
    base_channels: int = 64
    stem_kernel: int = 7

    @property
    def is_standard(self) -> bool:
        """Whether it is the resnet<depth> of torchvision and timm."""
        return self == ResNetShape(self.depth)

    def __str__(self) -> str:
        if self.is_standard:
            return f'ResNet-{self.depth}'
        kernel = f'{self.stem_kernel}x{self.stem_kernel}'
        return (
            f'ResNet-{self.depth} with a {kernel} stem of '
            f'{self.stem_channels} and blocks of {self.base_channels} channels'
        )


def is_resnet(state: Mapping[str, Tensor]) -> bool:
    """Whether all keys are those of a plain ResNet without classifier."""
    return bool(state) and all(re.fullmatch(RESNET_KEY, key) for key in state)


def read_resnet(state: Mapping[str, Tensor]) -> ResNetShape:
    """Find depth and widths, and check every key and shape.

    Args:
        state (Mapping[str, Tensor]): Weights of the backbone alone, by the
            keys of torchvision, which are also mmpretrain's.

    Returns:
        ResNetShape: Its depth and widths.

    Raises:
        ValueError: If it is not a plain ResNet, a key is missing or unknown,
            or a shape differs.
    """
    for key in ('conv1.weight', 'layer1.0.conv1.weight'):
        if key not in state or state[key].ndim != 4:
            raise ValueError(f'the backbone is not a plain ResNet: no {key}')
    stem = state['conv1.weight']
    shape = ResNetShape(
        _depth(state),
        stem.shape[0],
        state['layer1.0.conv1.weight'].shape[0],
        stem.shape[-1],
    )
    build = ResNet_CIFAR if shape.stem_kernel == 3 else ResNet
    model = build(
        shape.depth,
        stem_channels=shape.stem_channels,
        base_channels=shape.base_channels,
    )
    expected = {key: own.shape for key, own in model.state_dict().items()}
    problems = compare_shapes(expected, state).problems()
    if problems:
        raise ValueError(
            f'the backbone is not a complete plain {shape}: '
            f'{shorten(problems)}'
        )
    return shape


def _depth(state: Mapping[str, Tensor]) -> int:
    bottleneck = 'layer1.0.conv3.weight' in state
    blocks = tuple(
        len({key.split('.')[1] for key in state if key.startswith(stage)})
        for stage in ('layer1.', 'layer2.', 'layer3.', 'layer4.')
    )
    for depth, (_, counts) in ResNet.arch_settings.items():
        if counts == blocks and bottleneck == (depth >= 50):
            return depth
    kind = 'bottleneck' if bottleneck else 'basic'
    raise ValueError(
        f'no plain ResNet has stages of {blocks} {kind} blocks; the known '
        f'depths are {shorten([*map(str, ResNet.arch_settings)])}'
    )
