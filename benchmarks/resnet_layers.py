"""The convolutions of a ResNet, as the cost model counts them."""

from collections.abc import Iterator
from dataclasses import dataclass

# Blocks of each stage, whether they have a bottleneck.
DEPTHS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
STEM_CHANNELS = 64


@dataclass(frozen=True)
class Convolution:
    """A convolution without bias, with the batch norm that follows it.

    Attributes:
        inputs (int): Channels in.
        outputs (int): Channels out.
        kernel (int): Height and width of the kernel.
        in_size (int): Height and width of its input.
        out_size (int): Height and width of its output.
        activated (bool): Whether what the batch norm makes of it is kept by
            a ReLU or the next layer; not in a shortcut, whose result is
            added at once.
    """

    inputs: int
    outputs: int
    kernel: int
    in_size: int
    out_size: int
    activated: bool = True

    @property
    def weights(self) -> int:
        """Parameters, those of the batch norm included."""
        return self.outputs * (self.inputs * self.kernel**2 + 2)

    @property
    def flops(self) -> int:
        """Of a forward pass of one image; a multiply-add is two."""
        taps = self.inputs * self.kernel**2
        return 2 * taps * self.outputs * self.out_size**2

    @property
    def elements(self) -> int:
        """Elements of the output of one image."""
        return self.outputs * self.out_size**2


def resnet_layers(depth: int, image: int) -> list[Convolution]:
    """List the convolutions of mmpretrain's ``ResNet`` (style 'pytorch').

    Args:
        depth (int): 18, 34, 50, 101 or 152.
        image (int): Height and width of the images, a multiple of 32.

    Raises:
        ValueError: If either is none of these.
    """
    if depth not in DEPTHS or image < 32 or image % 32:
        raise ValueError(
            f'ResNet-{depth} at {image}: the depth must be one of '
            f'{list(DEPTHS)}, the image size a multiple of 32'
        )
    blocks, bottleneck = DEPTHS[depth]
    layers = [Convolution(3, STEM_CHANNELS, 7, image, image // 2)]
    inputs, size = STEM_CHANNELS, image // 4
    for stage, count in enumerate(blocks):
        width = STEM_CHANNELS * 2**stage
        for index in range(count):
            stride = 2 if stage and not index else 1
            layers += _block(inputs, width, size, stride, bottleneck)
            inputs = 4 * width if bottleneck else width
            size //= stride
    return layers


def _block(
    inputs: int, width: int, size: int, stride: int, bottleneck: bool
) -> Iterator[Convolution]:
    out = size // stride
    if bottleneck:
        outputs = 4 * width
        yield Convolution(inputs, width, 1, size, size)
        yield Convolution(width, width, 3, size, out)
        yield Convolution(width, outputs, 1, out, out)
    else:
        outputs = width
        yield Convolution(inputs, width, 3, size, out)
        yield Convolution(width, width, 3, out, out)
    if stride > 1 or inputs != outputs:
        yield Convolution(inputs, outputs, 1, size, out, activated=False)
