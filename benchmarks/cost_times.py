"""Times that the counted costs suggest on given hardware: estimates.

Each resource alone gives a time; the largest limits. What a step really
takes is never less than that, and usually more.
"""

from dataclasses import dataclass

from .cost_model import Step, StepCost, step_cost

# Of what a data sheet says, this much is reached on a good day.
COMPUTE_SHARE, MEMORY_SHARE, LINK_SHARE = 0.6, 0.8, 0.7
# The gradients travel while the backward pass goes on.
BACKWARD_SHARE = 0.5


@dataclass(frozen=True)
class Hardware:
    """Figures of a data sheet, none of them measured here.

    Attributes:
        name (str): For people.
        flops (float): Dense half precision products, operations a second.
        memory_rate (float): Bytes a second of the GPU's memory.
        memory (float): Its bytes.
        link (float): Bytes a second that a GPU sends within a machine.
        network (float): Bytes a second that a GPU sends between machines.
        gpus (int): Of a machine.
        cores (int): For the data loader of a GPU.
    """

    name: str
    flops: float
    memory_rate: float
    memory: float
    link: float
    network: float
    gpus: int
    cores: int


HARDWARE = {
    'h200': Hardware(
        'H200, NVLink, 400 Gbit/s a GPU',
        flops=989e12,
        memory_rate=4.8e12,
        memory=141e9,
        link=450e9,
        network=50e9,
        gpus=8,
        cores=16,
    ),
    'rtx4090': Hardware(
        'GeForce RTX 4090, PCIe 4, 100 Gbit/s a machine',
        flops=165e12,
        memory_rate=1.0e12,
        memory=24e9,
        link=25e9,
        network=3e9,
        gpus=4,
        cores=16,
    ),
}


@dataclass(frozen=True)
class StepTimes:
    """Seconds that each resource needs for a step, if it were alone.

    Attributes:
        compute (float): The GPU's arithmetic.
        memory (float): The GPU's memory.
        gradients (float): Sum of the gradients over the GPUs, less what the
            backward pass hides.
        shuffle (float): Key images to other GPUs, keys to all.
        loading (float): CPU cores that prepare the images.
    """

    compute: float
    memory: float
    gradients: float
    shuffle: float
    loading: float

    @property
    def step(self) -> float:
        """At least: the GPU's work and what it waits for, or the CPU's."""
        gpu = max(self.compute, self.memory) + self.gradients + self.shuffle
        return max(gpu, self.loading)

    @property
    def limit(self) -> str:
        """What takes longest."""
        names = {
            'arithmetic': self.compute,
            'GPU memory rate': self.memory,
            'gradients': self.gradients,
            'shuffle': self.shuffle,
            'image loading': self.loading,
        }
        return max(names, key=names.get)


def step_times(
    step: Step, hardware: Hardware, core_seconds: float
) -> StepTimes:
    """Estimate the times of a step.

    Args:
        step (Step): The step.
        hardware (Hardware): The machines.
        core_seconds (float): Seconds of one core for both views of an image.

    Returns:
        StepTimes: Of one GPU.
    """
    cost = step_cost(step)
    ring, direct = link_rates(step.gpus, hardware)
    images = direct if step.shuffle == 'all_to_all' else ring
    # Float32 products run in TF32, at half the rate.
    flops = hardware.flops * COMPUTE_SHARE * 2 / step.activation_bytes
    compute = cost.flops / flops
    memory = cost.traffic_bytes / (hardware.memory_rate * MEMORY_SHARE)
    hidden = BACKWARD_SHARE * max(compute, memory)
    return StepTimes(
        compute=compute,
        memory=memory,
        gradients=max(cost.gradient_bytes / ring - hidden, 0.0),
        shuffle=cost.image_bytes / images + cost.key_bytes / ring,
        loading=step.batch * core_seconds / hardware.cores,
    )


def link_rates(gpus: int, hardware: Hardware) -> tuple[float, float]:
    """Bytes a second at which a GPU sends.

    Args:
        gpus (int): Of the run.
        hardware (Hardware): The machines.

    Returns:
        tuple[float, float]: In a ring, of which each machine passes a part
        on by the network of each of its GPUs; and straight to others, most
        of which are in other machines.
    """
    ring = direct = hardware.link
    if gpus > hardware.gpus:
        ring = min(ring, hardware.gpus * hardware.network)
        direct = min(direct, hardware.network)
    return LINK_SHARE * ring, LINK_SHARE * direct


def cores_needed(step: Step, hardware: Hardware, core_seconds: float) -> float:
    """Cores that keep a GPU busy."""
    times = step_times(step, hardware, 0.0)
    return step.batch * core_seconds / times.step


COST_COLUMNS = ('per GPU', 'value')
TIME_COLUMNS = (
    'GPUs',
    'shuffle',
    'gradients',
    'images sent',
    'keys sent',
    'img/s a GPU',
    'limit',
)


def cost_rows(step: Step, cost: StepCost) -> list[tuple[str, str]]:
    """Rows of the table of what does not depend on the number of GPUs."""
    tera, giga = 1e12, 1e9
    return [
        ('images', f'{step.batch}'),
        ('query, forward', f'{cost.forward_flops / tera:.3f} TFLOP'),
        ('query, backward', f'{cost.backward_flops / tera:.3f} TFLOP'),
        ('key, forward', f'{cost.key_flops / tera:.3f} TFLOP'),
        ('head', f'{cost.head_flops / tera:.3f} TFLOP'),
        ('step', f'{cost.flops / tera:.3f} TFLOP'),
        ('parameters of an encoder', f'{cost.parameters / 1e6:.2f} M'),
        ('activations kept', f'{cost.activation_bytes / giga:.2f} GB'),
        (
            'weights, gradients, momentum, key encoder',
            f'{cost.state_bytes / giga:.2f} GB',
        ),
        ('queue', f'{cost.queue_bytes / giga:.3f} GB'),
        (
            'memory read and written',
            f'{cost.traffic_bytes / giga:.1f} GB',
        ),
    ]


def time_row(
    step: Step, hardware: Hardware, core_seconds: float
) -> tuple[str, ...]:
    """Row of the table of what depends on the number of GPUs."""
    cost, times = step_cost(step), step_times(step, hardware, core_seconds)
    mega = 1e6
    return (
        f'{step.gpus}',
        step.shuffle if step.gpus > 1 else '-',
        f'{cost.gradient_bytes / mega:.0f} MB',
        f'{cost.image_bytes / mega:.1f} MB',
        f'{cost.key_bytes / mega:.2f} MB',
        f'{step.batch / times.step:.0f}',
        times.limit,
    )
