"""Colours, flip, blur and normalisation of a batch of views as Triton kernels.

The plain operations launch over a hundred kernels a batch and write every
intermediate image to memory. Here one kernel sums the gray values that each
view has when its contrast is due, a second one applies all colour operations,
and, for blurred views alone, two more blur down and then across. Each reads
one table of random parameters, so drawing them costs one copy.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .view_operations import ViewParameters

# Rows of the table, a column for each view: flags; the view's number among
# the blurred ones, or -1; the view whose number this is; four operations, -1
# for none; their factors.
_FLIPPED, _GRAY, _NUMBER = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
_BLURRED, _SIGMA = tl.constexpr(3), tl.constexpr(4)
_OPERATION, _FACTOR = tl.constexpr(5), tl.constexpr(9)
_STEPS = tl.constexpr(4)
# In the order of two_view_augment._JITTER.
_BRIGHTNESS, _CONTRAST = tl.constexpr(0), tl.constexpr(1)
_SATURATION, _HUE = tl.constexpr(2), tl.constexpr(3)


def pack(drawn: ViewParameters) -> Tensor:
    """Return the parameters of M views as one table, (13, M) float32."""
    numbers = drawn.blurred.cumsum(0) - 1
    rows = [
        drawn.flipped[None],
        drawn.gray[None],
        numbers.masked_fill(~drawn.blurred, -1)[None],
        (~drawn.blurred).int().argsort(stable=True)[None],
        drawn.sigma[None],
        drawn.orders.masked_fill(~drawn.jittered[:, None], -1).T,
        drawn.factors.gather(0, drawn.orders.T),
    ]
    return torch.cat([row.float() for row in rows])


def augment_views(
    views: Sequence[Tensor],
    drawn: ViewParameters,
    table: Tensor,
    radius: int,
    red: tuple[int, int],
    statistics: tuple[Tensor, Tensor] | None,
    dtype: torch.dtype,
) -> Tensor:
    """Do what ``TwoViewAugment`` does by :mod:`view_operations`.

    Args:
        views (Sequence[Tensor]): First and second views, (N, 3, H, W) each,
            of any dtype, 0 to 255.
        drawn (ViewParameters): Parameters of the 2N views, on the CPU.
        table (Tensor): What :func:`pack` made of them, on the device.
        radius (int): Half width of the blur in pixels, less than H and W.
        red (tuple[int, int]): Channel of red in the input and in the output:
            0 for RGB, 2 for BGR.
        statistics (tuple[Tensor, Tensor], optional): Mean and standard
            deviation in the output's channel order, or None.
        dtype (torch.dtype): Of the output.

    Returns:
        Tensor: (2N, 3, H, W).
    """
    kind = torch.promote_types(*(view.dtype for view in views))
    first, second = (view.to(kind).contiguous() for view in views)
    half, _, height, width = first.shape
    count, pixels = 2 * half, height * width
    out = first.new_empty((count, 3, height, width), dtype=dtype)
    block = 256 if first.is_cpu else 1024  # a CPU: Triton's interpreter
    blocks = triton.cdiv(pixels, block)
    sums = first.new_empty((count, blocks), dtype=torch.float32)
    num_blurred = int(drawn.blurred.sum())
    shape = (2, max(num_blurred, 1), 3, height, width)
    sharp, soft = first.new_empty(shape, dtype=torch.float32)
    # Unused pointers must be tensors too.
    mean, std = (s.expand(3, 1, 1) for s in statistics or (sums[:1, :1],) * 2)
    normalise = (mean, std, mean.stride(0), std.stride(0))
    size = (height, width, blocks)
    fixed = dict(NORMALISE=statistics is not None, RED_OUT=red[1], BLOCK=block)

    if drawn.jittered.any():
        _gray_sums_kernel[(count * blocks,)](
            *(first, second, table, sums, half, pixels, blocks),
            RED_IN=red[0],
            BLOCK=block,
        )
    _colour_kernel[(count * blocks,)](
        *(first, second, table, sums, out, sharp, half, *size, *normalise),
        RED_IN=red[0],
        PARTS=triton.next_power_of_2(blocks),
        **fixed,
    )
    if num_blurred:
        for source, target, last in ((sharp, soft, False), (soft, out, True)):
            _blur_kernel[(num_blurred * 3 * blocks,)](
                *(source, target, table, count, *size, radius, *normalise),
                LAST=last,
                **fixed,
            )
    return out


@triton.jit
def _locate(blocks, BLOCK: tl.constexpr):
    """Return the image (or plane) of a program, and its pixels."""
    program = tl.program_id(0)
    pixels = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    return (program // blocks).to(tl.int64), pixels


@triton.jit
def _load(first, second, half, view, places, pixels, mask, RED: tl.constexpr):
    """Return red, green and blue at ``places`` of a view, as float32."""
    if view < half:
        source = first + view * 3 * pixels
    else:
        source = second + (view - half) * 3 * pixels
    source += places
    red = tl.load(source + RED * pixels, mask=mask, other=0)
    green = tl.load(source + pixels, mask=mask, other=0)
    blue = tl.load(source + (2 - RED) * pixels, mask=mask, other=0)
    return red.to(tl.float32), green.to(tl.float32), blue.to(tl.float32)


@triton.jit
def _luma(red, green, blue):
    return 0.2989 * red + 0.587 * green + 0.114 * blue


@triton.jit
def _blend(other, value, factor):
    return tl.minimum(tl.maximum(other + factor * (value - other), 0), 255)


@triton.jit
def _rotated(hue, start, value, chroma):
    """Return a channel from its hue in sixths of a turn; see adjust_hue."""
    angle = hue + start
    angle -= 6 * tl.floor(angle / 6)
    angle = tl.minimum(tl.maximum(tl.minimum(angle, 4 - angle), 0), 1)
    return value - angle * chroma


@triton.jit
def _operate(operation, factor, mean, red, green, blue):
    """Apply one colour operation, or none."""
    if (operation >= _BRIGHTNESS) & (operation < _HUE):
        if operation == _BRIGHTNESS:
            other = red * 0
        elif operation == _CONTRAST:
            other = red * 0 + mean
        else:
            other = _luma(red, green, blue)
        red = _blend(other, red, factor)
        green = _blend(other, green, factor)
        blue = _blend(other, blue, factor)
    elif operation == _HUE:
        value = tl.maximum(tl.maximum(red, green), blue)
        chroma = value - tl.minimum(tl.minimum(red, green), blue)
        scale = 1 / tl.maximum(chroma, 1e-30)  # of gray all differences are 0
        hue = tl.where(
            value == green,
            (blue - red) * scale + 2,
            (red - green) * scale + 4,
        )
        hue = tl.where(value == red, (green - blue) * scale, hue) + 6 * factor
        red = _rotated(hue, 5, value, chroma)
        green = _rotated(hue, 3, value, chroma)
        blue = _rotated(hue, 1, value, chroma)
    return red, green, blue


@triton.jit
def _store(
    out,
    value,
    view,
    channel,
    places,
    pixels,
    mask,
    mean,
    std,
    mean_step,
    std_step,
    NORMALISE: tl.constexpr,
):
    """Normalise a channel of a view and store it."""
    if NORMALISE:
        value -= tl.load(mean + channel * mean_step)
        value /= tl.load(std + channel * std_step)
    tl.store(out + (view * 3 + channel) * pixels + places, value, mask=mask)


@triton.jit
def _gray_sums_kernel(
    first,
    second,
    table,
    sums,
    half,
    pixels,
    blocks,
    RED_IN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum the gray values of a block of pixels when contrast is due."""
    view, places = _locate(blocks, BLOCK)
    mask = places < pixels
    column, count = table + view, 2 * half
    if tl.load(column + _OPERATION * count) >= 0:
        red, green, blue = _load(
            first, second, half, view, places, pixels, mask, RED_IN
        )
        before = 1
        for step in tl.static_range(_STEPS):
            operation = tl.load(column + (_OPERATION + step) * count)
            factor = tl.load(column + (_FACTOR + step) * count)
            before = tl.where(operation == _CONTRAST, 0, before)
            operation = tl.where(before == 1, operation, -1.0)
            red, green, blue = _operate(
                operation, factor, 0.0, red, green, blue
            )
        gray = tl.where(mask, _luma(red, green, blue), 0.0)
        tl.store(sums + tl.program_id(0), tl.sum(gray))


@triton.jit
def _colour_kernel(
    first,
    second,
    table,
    sums,
    out,
    sharp,
    half,
    height,
    width,
    blocks,
    mean,
    std,
    mean_step,
    std_step,
    RED_IN: tl.constexpr,
    RED_OUT: tl.constexpr,
    PARTS: tl.constexpr,
    NORMALISE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Flip, jitter and gray a block; finish it unless it will be blurred."""
    view, places = _locate(blocks, BLOCK)
    pixels = height * width
    mask = places < pixels
    column, count = table + view, 2 * half
    across = places % width
    flipped = tl.load(column + _FLIPPED * count) > 0
    turned = tl.where(flipped, width - 1 - across, across)
    red, green, blue = _load(
        first,
        second,
        half,
        view,
        places - across + turned,
        pixels,
        mask,
        RED_IN,
    )
    parts = tl.arange(0, PARTS)
    gray = tl.load(sums + view * blocks + parts, mask=parts < blocks, other=0)
    gray_mean = tl.sum(gray) / pixels
    for step in tl.static_range(_STEPS):
        operation = tl.load(column + (_OPERATION + step) * count)
        factor = tl.load(column + (_FACTOR + step) * count)
        red, green, blue = _operate(
            operation, factor, gray_mean, red, green, blue
        )
    if tl.load(column + _GRAY * count) > 0:
        red = _luma(red, green, blue)
        green = red
        blue = red
    number = tl.load(column + _NUMBER * count).to(tl.int64)
    if number >= 0:
        target = sharp + number * 3 * pixels + places
        tl.store(target, red, mask=mask)
        tl.store(target + pixels, green, mask=mask)
        tl.store(target + 2 * pixels, blue, mask=mask)
    else:
        for colour in tl.static_range(3):
            if colour == 0:
                value = red
            elif colour == 1:
                value = green
            else:
                value = blue
            _store(
                out,
                value,
                view,
                RED_OUT + colour * (1 - RED_OUT),
                places,
                pixels,
                mask,
                mean,
                std,
                mean_step,
                std_step,
                NORMALISE,
            )


@triton.jit
def _blur_kernel(
    source,
    target,
    table,
    count,
    height,
    width,
    blocks,
    radius,
    mean,
    std,
    mean_step,
    std_step,
    LAST: tl.constexpr,
    RED_OUT: tl.constexpr,
    NORMALISE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Blur a block of a plane down, or across (``LAST``) and finish it."""
    plane, places = _locate(blocks, BLOCK)
    view = tl.load(table + _BLURRED * count + plane // 3).to(tl.int64)
    sigma = tl.load(table + _SIGMA * count + view)
    pixels = height * width
    mask = places < pixels
    if LAST:
        position, length, step = places % width, width, 1
    else:
        position, length, step = places // width, height, width
    start = source + plane * pixels + places - position * step
    value = tl.zeros((BLOCK,), tl.float32)
    total = 0.0
    for tap in range(-radius, radius + 1):
        ratio = tap / sigma
        weight = tl.exp(-0.5 * ratio * ratio)
        # Reflected at the borders, which are not repeated.
        place = tl.abs(position + tap)
        place = tl.minimum(place, 2 * (length - 1) - place)
        value += weight * tl.load(start + place * step, mask=mask, other=0.0)
        total += weight
    value /= total
    if LAST:
        _store(
            target,
            value,
            view,
            RED_OUT + (plane % 3) * (1 - RED_OUT),
            places,
            pixels,
            mask,
            mean,
            std,
            mean_step,
            std_step,
            NORMALISE,
        )
    else:
        tl.store(target + plane * pixels + places, value, mask=mask)
