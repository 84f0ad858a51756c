"""What kind of ResNet a state dict is, told from its keys and shapes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from mmunimoco.utils.checkpoint import shorten

from .renaming import differences

# Keys of torchvision's, timm's and mmpretrain's plain ResNet, without fc.
_NORM = r'(?:weight|bias|running_mean|running_var|num_batches_tracked)'
RESNET_KEY = (
    rf'(?:conv1\.weight|bn1\.{_NORM}|layer[1-4]\.\d+\.(?:conv[1-3]\.weight|'
    rf'bn[1-3]\.{_NORM}|downsample\.0\.weight|downsample\.1\.{_NORM}))'
)


# Blocks of each stage by depth; from 50 on they are bottlenecks.
_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


@dataclass(frozen=True)
class ResNetShape:
    """Depth and widths of a plain ResNet.

    Args:
        depth (int): 18, 34, 50, 101 or 152.
        stem_channels (int): Channels of the first convolution.
        base_channels (int): Channels of the first stage's blocks.
        stem_kernel (int): 7, or 3 for images of CIFAR's size.
    """

    depth: int
    stem_channels: int = 64
    base_channels: int = 64
    stem_kernel: int = 7

    @property
    def is_standard(self) -> bool:
        """Whether torchvision and timm have it under the name resnetXX."""
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
    """Whether all keys are those of a plain ResNet, without classifier."""
    return bool(state) and all(re.fullmatch(RESNET_KEY, key) for key in state)


def read_resnet(state: Mapping[str, Tensor]) -> ResNetShape:
    """Tell depth and widths, and check every key and shape.

    Args:
        state (Mapping[str, Tensor]): Weights of the backbone alone, by the
            keys of torchvision (which are mmpretrain's).

    Returns:
        ResNetShape: What it is.

    Raises:
        ValueError: If it is no plain ResNet, a key is missing or unknown, or
            a shape differs.
    """
    for key in ('conv1.weight', 'layer1.0.conv1.weight'):
        if key not in state or state[key].ndim != 4:
            raise ValueError(f'the backbone is no plain ResNet: no {key}')
    stem = state['conv1.weight']
    shape = ResNetShape(
        _depth(state),
        stem.shape[0],
        state['layer1.0.conv1.weight'].shape[0],
        stem.shape[-1],
    )
    found = differences(_expected(shape), state)
    if found:
        raise ValueError(
            f'the backbone is no complete plain {shape}: {shorten(found)}'
        )
    return shape


def _depth(state: Mapping[str, Tensor]) -> int:
    bottleneck = 'layer1.0.conv3.weight' in state
    blocks = tuple(
        len({key.split('.')[1] for key in state if key.startswith(stage)})
        for stage in ('layer1.', 'layer2.', 'layer3.', 'layer4.')
    )
    for depth, counts in _BLOCKS.items():
        if counts == blocks and bottleneck == (depth >= 50):
            return depth
    kind = 'bottleneck' if bottleneck else 'basic'
    raise ValueError(
        f'no plain ResNet has stages of {blocks} {kind} blocks; the known '
        f'depths are {shorten([*map(str, _BLOCKS)])}'
    )


def _expected(shape: ResNetShape) -> dict[str, tuple[int, ...]]:
    """Shapes by key."""
    kernel, stem = shape.stem_kernel, shape.stem_channels
    shapes = _conv_and_norm('conv1', 'bn1', stem, 3, kernel)
    inputs, expansion = stem, 4 if shape.depth >= 50 else 1
    for stage, blocks in enumerate(_BLOCKS[shape.depth]):
        width = shape.base_channels * 2**stage
        for number in range(blocks):
            block = _block(width, inputs, expansion)
            outputs = width * expansion
            if number == 0 and (stage > 0 or inputs != outputs):
                names = ('downsample.0', 'downsample.1')
                block.update(_conv_and_norm(*names, outputs, inputs, 1))
            name = f'layer{stage + 1}.{number}.'
            shapes.update({name + key: size for key, size in block.items()})
            inputs = outputs
    return shapes


def _block(
    width: int, inputs: int, expansion: int
) -> dict[str, tuple[int, ...]]:
    if expansion == 1:
        layers = [(width, inputs, 3), (width, width, 3)]
    else:
        layers = [
            (width, inputs, 1),
            (width, width, 3),
            (width * expansion, width, 1),
        ]
    shapes = {}
    for i, layer in enumerate(layers, start=1):
        shapes.update(_conv_and_norm(f'conv{i}', f'bn{i}', *layer))
    return shapes


def _conv_and_norm(
    conv: str, norm: str, outputs: int, inputs: int, kernel: int
) -> dict[str, tuple[int, ...]]:
    names = ('weight', 'bias', 'running_mean', 'running_var')
    return {
        f'{conv}.weight': (outputs, inputs, kernel, kernel),
        **{f'{norm}.{name}': (outputs,) for name in names},
        f'{norm}.num_batches_tracked': (),
    }
