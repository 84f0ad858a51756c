"""Estimate what a pre-training step costs from the shapes of its tensors.

python -m benchmarks.cost_model --gpus 1 8 64 512 --batch 32

FLOPs, parameters and activations are counted by torch on the real modules,
built on the meta device; bytes sent follow from formulas; times are estimates
from data sheets. ``benchmarks.estimate`` calibrates them on a measured step.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from functools import cache

import torch
from mmpretrain.registry import MODELS
from rich.console import Console
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .tables import print_table

FLOAT, INT = 4, 8  # bytes of float32 and int64
# Reads and writes per element of a convolution's input (convolution;
# gradients of input and weight) and of its output (convolution 1, batch
# statistics 1, normalise 2, ReLU 2; backward: ReLU 3, batch norm 5,
# convolution 2): query forward and backward, key forward.
INPUT_PASSES, OUTPUT_PASSES = 2 * 1 + 2, 2 * 6 + 10
# Per parameter: SGD with momentum reads 3 and writes 2, the momentum encoder
# reads 2 and writes 1.
UPDATE_PASSES = 8
# Per score of the head: product, shift, exponential, sums.
SCORE_PASSES = 8
# Share of a data sheet's figure that is reached on a good day.
COMPUTE_SHARE, MEMORY_SHARE, LINK_SHARE = 0.6, 0.8, 0.7
BACKWARD_SHARE = 0.5  # of a step; gradients are sent meanwhile


@dataclass(frozen=True)
class Step:
    """Shape of a training step.

    Attributes:
        gpus (int): Number W of processes, each with one GPU.
        batch (int): Images per GPU.
        shuffle (str): How key images are exchanged: 'all_to_all', as here, or
            'all_gather', as published.
        half (bool): Whether activations are bfloat16 or float32.
        depth (int): Of the ResNet.
        image (int): Height and width of the images.
        hidden (int): Width of the neck.
        feat_dim (int): Length C of queries and keys.
        queue_len (int): Number of keys K.

    Raises:
        ValueError: If a number is not positive or the shuffle is unknown.
    """

    gpus: int = 8
    batch: int = 32
    shuffle: str = 'all_to_all'
    half: bool = True
    depth: int = 50
    image: int = 224
    hidden: int = 2048
    feat_dim: int = 128
    queue_len: int = 65536

    def __post_init__(self) -> None:
        if self.shuffle not in ('all_to_all', 'all_gather'):
            raise ValueError(
                'shuffle must be all_to_all or all_gather, got '
                f'{self.shuffle!r}'
            )
        for name in ('gpus', 'batch', 'image', 'hidden', 'queue_len'):
            if getattr(self, name) < 1:
                raise ValueError(
                    f'{name} must be at least 1, got {getattr(self, name)}'
                )


@dataclass(frozen=True)
class EncoderCost:
    """What torch counts on backbone and neck, for a batch."""

    forward_flops: int
    backward_flops: int
    parameters: int
    activation_bytes: int  # saved by the forward for the backward pass
    # Read and written by query forward, query backward and key forward.
    traffic_elements: int


@cache
def encoder_cost(
    batch: int, half: bool, depth: int, image: int, hidden: int, feat_dim: int
) -> EncoderCost:
    """Count the cost of backbone and neck on the meta device.

    Args:
        batch (int): Images.
        half (bool): Whether activations are bfloat16 or float32.
        depth (int): Of the ResNet.
        image (int): Height and width of the images.
        hidden (int): Width of the neck.
        feat_dim (int): Length of its output.
    """
    features = 2048 if depth >= 50 else 512
    dtype = torch.bfloat16 if half else torch.float32
    neck = dict(
        type='mmpretrain.MoCoV2Neck',
        in_channels=features,
        hid_channels=hidden,
        out_channels=feat_dim,
    )
    encoder = nn.Sequential(
        MODELS.build(dict(type='mmpretrain.ResNet', depth=depth)),
        MODELS.build(neck),
    ).to('meta', dtype)
    images = torch.empty(batch, 3, image, image, dtype=dtype, device='meta')
    traffic = 0

    def count_traffic(module: nn.Module, inputs: tuple, out: Tensor) -> None:
        nonlocal traffic
        traffic += INPUT_PASSES * inputs[0].numel()
        traffic += OUTPUT_PASSES * out.numel()

    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count_traffic)
    with FlopCounterMode(display=False) as forward:
        out, saved = saved_bytes(encoder, images)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    return EncoderCost(
        forward.get_total_flops(),
        backward.get_total_flops(),
        sum(p.numel() for p in encoder.parameters()),
        saved,
        traffic,
    )


def saved_bytes(module: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    """Run a forward pass; return its result and the bytes autograd saves.

    Each saved storage counts once, parameters and buffers do not count.
    """
    own = {
        tensor.untyped_storage()._cdata
        for tensor in (*module.parameters(), *module.buffers())
    }
    storages = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            storages[storage._cdata] = storage  # alive: no address recurs
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = module(x)[0]
    return out, sum(storage.nbytes() for storage in storages.values())


@dataclass(frozen=True)
class StepCost:
    """Cost of a step on one GPU.

    Attributes:
        encoder (EncoderCost): Of one encoder.
        head_flops (int): Products with the queue: loss and gradient.
        state_bytes (int): Weights, gradients, momentum buffers, key encoder.
        queue_bytes (int): Keys and labels.
        traffic_bytes (int): Memory read and written, with nothing fused.
        gradient_bytes (int): Sent by the ring all_reduce of the gradients.
        image_bytes (int): Sent to shuffle the key images.
        key_bytes (int): Sent to return the keys and to gather keys and labels.
    """

    encoder: EncoderCost
    head_flops: int
    state_bytes: int
    queue_bytes: int
    traffic_bytes: int
    gradient_bytes: int
    image_bytes: int
    key_bytes: int

    @property
    def flops(self) -> int:
        """Of the whole step."""
        encoder = self.encoder
        return (
            2 * encoder.forward_flops
            + encoder.backward_flops
            + self.head_flops
        )


def step_cost(step: Step) -> StepCost:
    """Return the cost of a step."""
    encoder = encoder_cost(
        *(step.batch, step.half, step.depth),
        *(step.image, step.hidden, step.feat_dim),
    )
    others = step.gpus - 1
    share = others / step.gpus  # what leaves a GPU of evenly spread data
    shuffled = share if step.shuffle == 'all_to_all' else others
    keys = step.batch * step.feat_dim * FLOAT
    scores = step.batch * step.queue_len
    parameter_bytes = encoder.parameters * FLOAT
    return StepCost(
        encoder,
        head_flops=4 * scores * step.feat_dim,
        state_bytes=4 * parameter_bytes,
        queue_bytes=step.queue_len * (step.feat_dim * FLOAT + INT),
        traffic_bytes=(
            encoder.traffic_elements * (2 if step.half else FLOAT)
            + UPDATE_PASSES * parameter_bytes
            + SCORE_PASSES * scores * FLOAT
        ),
        gradient_bytes=round(2 * share * parameter_bytes),
        image_bytes=round(shuffled * step.batch * 3 * step.image**2 * FLOAT),
        key_bytes=round(shuffled * keys + others * (keys + step.batch * INT)),
    )


@dataclass(frozen=True)
class Hardware:
    """Figures of a data sheet, bytes and operations per second."""

    name: str
    flops: float  # dense half precision
    memory_rate: float
    link: float  # sent by a GPU within a machine
    network: float  # sent by a GPU between machines
    gpus: int  # per machine
    cores: int  # per GPU, for its data loader
    memory_share: float = MEMORY_SHARE  # of memory_rate that is reached
    # Seconds of the GPU per image to augment two views; 0 if not measured.
    augmenting: float = 0.0
    # Seconds of the host per step, whatever the batch; 0 if not measured.
    host: float = 0.0


HARDWARE = dict(
    h200=Hardware(
        'H200, NVLink, 400 Gbit/s per GPU',
        *(989e12, 4.8e12, 450e9, 50e9, 8, 16),
    ),
    rtx4090=Hardware(
        'GeForce RTX 4090, PCIe 4, 100 Gbit/s per machine',
        *(165e12, 1.0e12, 25e9, 3e9, 4, 16),
    ),
)


def step_times(
    step: Step, hardware: Hardware, core_seconds: float
) -> dict[str, float]:
    """Estimate the seconds that each resource needs for a step.

    Args:
        step (Step): The step.
        hardware (Hardware): Of all machines.
        core_seconds (float): Seconds of one CPU core for both views of an
            image.
    """
    cost = step_cost(step)
    # In a ring each machine forwards a part over the network of each GPU;
    # all_to_all sends most of its data to other machines directly.
    ring = direct = hardware.link
    if step.gpus > hardware.gpus:
        ring = min(ring, hardware.gpus * hardware.network)
        direct = min(direct, hardware.network)
    ring, direct = LINK_SHARE * ring, LINK_SHARE * direct
    # float32 products run in TF32, at half the rate.
    flops = hardware.flops * COMPUTE_SHARE / (1 if step.half else 2)
    compute = cost.flops / flops
    rate = hardware.memory_rate * hardware.memory_share
    memory = cost.traffic_bytes / rate
    hidden = BACKWARD_SHARE * max(compute, memory)
    images = direct if step.shuffle == 'all_to_all' else ring
    return {
        'arithmetic': compute,
        'GPU memory rate': memory,
        'gradients': max(cost.gradient_bytes / ring - hidden, 0.0),
        'shuffle': cost.image_bytes / images + cost.key_bytes / ring,
        'augmentation': step.batch * hardware.augmenting,
        'host': hardware.host,
        'image loading': step.batch * core_seconds / hardware.cores,
    }


def seconds_per_step(times: dict[str, float]) -> float:
    """Return a lower bound from the times of :func:`step_times`."""
    gpu = max(times['arithmetic'], times['GPU memory rate'])
    gpu += times['gradients'] + times['shuffle'] + times['augmentation']
    return max(gpu, times['host'], times['image loading'])


def cost_rows(step: Step) -> list[tuple[str, str]]:
    """Return the table of what does not depend on the number of GPUs."""
    cost = step_cost(step)
    encoder = cost.encoder
    return [
        ('query, forward', f'{encoder.forward_flops / 1e12:.3f} TFLOP'),
        ('query, backward', f'{encoder.backward_flops / 1e12:.3f} TFLOP'),
        ('key, forward', f'{encoder.forward_flops / 1e12:.3f} TFLOP'),
        ('head', f'{cost.head_flops / 1e12:.3f} TFLOP'),
        ('step', f'{cost.flops / 1e12:.3f} TFLOP'),
        ('parameters per encoder', f'{encoder.parameters / 1e6:.2f} M'),
        (
            'activations saved for the backward pass',
            f'{encoder.activation_bytes / 1e9:.2f} GB',
        ),
        (
            'weights, gradients, momentum, key encoder',
            f'{cost.state_bytes / 1e9:.2f} GB',
        ),
        ('queue', f'{cost.queue_bytes / 1e9:.3f} GB'),
        (
            'memory read and written, nothing fused',
            f'{cost.traffic_bytes / 1e9:.1f} GB',
        ),
    ]


TRAFFIC_COLUMNS = (
    *('GPUs', 'shuffle', 'gradients sent', 'images sent', 'keys sent'),
    *('images/s per GPU', 'limit'),
)


def traffic_rows(
    step: Step, gpus: list[int], hardware: Hardware, core_seconds: float
) -> list[tuple[str, ...]]:
    """Return the table of what depends on the number of GPUs."""
    rows = []
    for count in gpus:
        for shuffle in ('all_to_all', 'all_gather')[: 1 if count == 1 else 2]:
            this = replace(step, gpus=count, shuffle=shuffle)
            cost = step_cost(this)
            times = step_times(this, hardware, core_seconds)
            rows.append(
                (
                    f'{count}',
                    shuffle if count > 1 else '-',
                    f'{cost.gradient_bytes / 1e6:.0f} MB',
                    f'{cost.image_bytes / 1e6:.1f} MB',
                    f'{cost.key_bytes / 1e6:.2f} MB',
                    f'{step.batch / seconds_per_step(times):.0f}',
                    max(times, key=times.get),
                )
            )
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.cost_model',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--gpus', type=int, nargs='+', default=[1, 8, 64, 512])
    parser.add_argument('--batch', type=int, default=32, help='per GPU')
    parser.add_argument('--hardware', choices=list(HARDWARE), default='h200')
    parser.add_argument('--depth', type=int, default=50, help='of the ResNet')
    parser.add_argument('--image', type=int, default=224)
    parser.add_argument('--queue-len', type=int, default=65536)
    parser.add_argument('--fp32', action='store_true')
    parser.add_argument(
        '--core-ms',
        type=float,
        default=1.4,
        help='milliseconds of a CPU core for both views of an image (default: '
        '%(default)s)',
    )
    args = parser.parse_args(argv)
    hardware, core_seconds = HARDWARE[args.hardware], args.core_ms / 1000
    try:
        step = Step(
            gpus=1,
            batch=args.batch,
            half=not args.fp32,
            depth=args.depth,
            image=args.image,
            hidden=2048 if args.depth >= 50 else 512,
            queue_len=args.queue_len,
        )
        rows = traffic_rows(step, args.gpus, hardware, core_seconds)
    except (ValueError, KeyError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    console = Console()
    title = f'ResNet-{step.depth} at {step.image}, batch {step.batch}'
    print_table(console, title, ('per GPU', 'value'), cost_rows(step))
    title = f'Upper bound of the speed on {hardware.name}'
    print_table(console, title, TRAFFIC_COLUMNS, rows)
    busy = seconds_per_step(step_times(step, hardware, 0.0))
    cores = step.batch * core_seconds / busy
    console.print(f'CPU cores that keep one such GPU busy: {cores:.1f}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
