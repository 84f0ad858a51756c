"""What a pre-training step costs, counted on paper.

FLOPs, bytes of memory and bytes of collectives of one GPU follow from the
shapes alone; the tests hold them against torch's FLOP counter, the tensors
that autograd saves, and the bytes that gloo processes send. Times, in
``cost_times.py``, are estimates on top.
"""

from dataclasses import dataclass

from .resnet_layers import STEM_CHANNELS, Convolution, resnet_layers

FLOAT, INT = 4, 8  # bytes of float32 and int64
SHUFFLES = ('all_to_all', 'all_gather')
# Times that memory is read or written: per element of a convolution's input
# (conv; gradients of input and weights) and of its output (conv 1, statistics
# 1, normalise 2, ReLU 2; in the backward pass ReLU 3, batch norm 5, conv 2).
FORWARD_PASSES = (1, 6)
BACKWARD_PASSES = (2, 10)
# Per parameter: SGD with momentum reads 3 and writes 2, the momentum encoder
# reads 2 and writes 1.
UPDATE_PASSES = 8
# Per score of the head: product, shift, exponential, sums.
SCORE_PASSES = 8


@dataclass(frozen=True)
class Step:
    """A training step.

    Attributes:
        gpus (int): Number W of processes, each with a GPU.
        batch (int): Images per GPU.
        shuffle (str): How the key images travel: 'all_to_all', as here, or
            'all_gather', as published.
        activation_bytes (int): Per element: 2 for mixed precision, 4 for
            float32.
        depth (int): Of the ResNet.
        image (int): Height and width.
        hidden (int): Width of the neck.
        feat_dim (int): Length C of queries and keys.
        queue_len (int): Number of keys K.

    Raises:
        ValueError: If a number is not positive, or the shuffle unknown.
    """

    gpus: int = 8
    batch: int = 32
    shuffle: str = 'all_to_all'
    activation_bytes: int = 2
    depth: int = 50
    image: int = 224
    hidden: int = 2048
    feat_dim: int = 128
    queue_len: int = 65536

    def __post_init__(self) -> None:
        if self.shuffle not in SHUFFLES:
            raise ValueError(
                f'shuffle must be one of {SHUFFLES}, got {self.shuffle!r}'
            )
        for name in ('gpus', 'batch', 'hidden', 'feat_dim', 'queue_len'):
            if getattr(self, name) < 1:
                raise ValueError(
                    f'{name} must be 1 or more, got {getattr(self, name)}'
                )
        if self.activation_bytes not in (2, 4):
            raise ValueError(
                f'activation_bytes must be 2 or 4, got {self.activation_bytes}'
            )


@dataclass(frozen=True)
class StepCost:
    """Costs of a step on one GPU.

    Attributes:
        forward_flops (int): Query encoder, forward.
        backward_flops (int): Query encoder, backward.
        key_flops (int): Key encoder, forward.
        head_flops (int): Products with the queue, value and gradient.
        parameters (int): Of one encoder.
        activation_bytes (int): Kept from the forward for the backward pass.
        state_bytes (int): Weights, gradients, SGD's momentum, key encoder.
        queue_bytes (int): Keys and labels.
        traffic_bytes (int): Memory read and written, with nothing fused.
        gradient_bytes (int): Sent for the sum of the gradients, by a ring.
        image_bytes (int): Sent for the shuffle of the key images.
        key_bytes (int): Sent to bring keys back and to give all ranks all
            keys and labels.
    """

    forward_flops: int
    backward_flops: int
    key_flops: int
    head_flops: int
    parameters: int
    activation_bytes: int
    state_bytes: int
    queue_bytes: int
    traffic_bytes: int
    gradient_bytes: int
    image_bytes: int
    key_bytes: int

    @property
    def flops(self) -> int:
        """Of the whole step."""
        return (
            self.forward_flops
            + self.backward_flops
            + self.key_flops
            + self.head_flops
        )

    @property
    def memory_bytes(self) -> int:
        """Held at the peak, without what the allocator and cuDNN add."""
        return self.activation_bytes + self.state_bytes + self.queue_bytes


def step_cost(step: Step) -> StepCost:
    """Count what a step costs.

    Args:
        step (Step): The step.

    Returns:
        StepCost: Per GPU.
    """
    layers = resnet_layers(step.depth, step.image)
    features = layers[-1].outputs if step.depth < 50 else 4 * 512
    parameters = count_parameters(step, layers, features)
    neck = features * step.hidden + step.hidden * step.feat_dim
    forward = step.batch * (sum(x.flops for x in layers) + 2 * neck)
    others = step.gpus - 1
    share = others / step.gpus  # of what is spread evenly, leaves the GPU
    images = step.batch * 3 * step.image**2 * FLOAT
    keys = step.batch * step.feat_dim * FLOAT
    shuffled = step.shuffle == 'all_to_all'
    scores = step.batch * step.queue_len
    return StepCost(
        forward_flops=forward,
        # The images need no gradient.
        backward_flops=2 * forward - step.batch * layers[0].flops,
        key_flops=forward,
        head_flops=4 * scores * step.feat_dim,
        parameters=parameters,
        activation_bytes=(
            step.batch * activation_bytes(step, layers, features)
            # Mean and deviation of each channel of the batch, in float32.
            + 2 * FLOAT * sum(layer.outputs for layer in layers)
        ),
        state_bytes=4 * parameters * FLOAT,
        queue_bytes=step.queue_len * (step.feat_dim * FLOAT + INT),
        traffic_bytes=(
            step.batch * traffic_elements(layers) * step.activation_bytes
            + UPDATE_PASSES * parameters * FLOAT
            + SCORE_PASSES * scores * FLOAT
        ),
        gradient_bytes=round(2 * share * parameters * FLOAT),
        image_bytes=round((share if shuffled else others) * images),
        # Back to their owners, or with an all_gather of its own; then keys
        # and labels to all.
        key_bytes=round(
            (share if shuffled else others) * keys
            + others * (keys + step.batch * INT)
        ),
    )


def count_parameters(
    step: Step, layers: list[Convolution], features: int
) -> int:
    """Parameters of backbone and neck."""
    neck = (features + 1) * step.hidden + (step.hidden + 1) * step.feat_dim
    return sum(layer.weights for layer in layers) + neck


def activation_bytes(
    step: Step, layers: list[Convolution], features: int
) -> int:
    """What autograd keeps of one image.

    Of a convolution its input, which is the result of an earlier ReLU or the
    image, and, for batch norm, its output.
    """
    pooled = STEM_CHANNELS * (step.image // 4) ** 2
    elements = 3 * step.image**2 + pooled + features + step.hidden
    for layer in layers:
        elements += layer.elements * (2 if layer.activated else 1)
    # Max pooling remembers places.
    return elements * step.activation_bytes + pooled * INT


def traffic_elements(layers: list[Convolution]) -> int:
    """Elements that one image moves: query forward and backward, key."""
    per_input = 2 * FORWARD_PASSES[0] + BACKWARD_PASSES[0]
    per_output = 2 * FORWARD_PASSES[1] + BACKWARD_PASSES[1]
    return sum(
        per_input * layer.inputs * layer.in_size**2
        + per_output * layer.elements
        for layer in layers
    )
