"""How a training step of ours grows with labels, batch and processes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from matplotlib.axes import Axes
from mmengine.model import MMDistributedDataParallel

from benchmarks.gpu_check.training_step import Case as StepCase
from benchmarks.gpu_check.training_step import build_step, synthetic_batches

from .case import OURS, Case, Settings, Ticker
from .formats import draw_lines, in_ratio, in_time
from .processes import run_processes
from .step_case import CLASSES, STEPS, Size, build_trainer, repeat
from .timing import METHOD, ratio_spread, spread, stopwatch, time_interleaved
from .trainer import clean_up, our_config, set_model_size

LABEL_SHARES = (0.0, 0.1, 1.0)
BATCHES = dict(cpu=(4, 8, 16), cuda=(32, 64, 128, 256))
WORLD_SIZES = (1, 2, 4)
SIZES = dict(
    cpu=Size(8, image=64, depth=18, rounds=9, warmup=1),
    cuda=Size(256, rounds=20),
)
# A difference of 1 % is looked for, and single steps differ by more.
LABEL_ROUNDS = 5
QUICK = Size(2, image=32, depth=18, rounds=2, warmup=1)
# The processes share the cores, so what each does is small.
PROCESS_SIZE = Size(8, image=32, depth=18, rounds=6, warmup=2)


def measure_labels(
    size: Size, settings: Settings, tick: Callable[[], Any]
) -> list[dict]:
    """Time a step without labels, with some, with all; one model each."""
    steps = {}
    for share in LABEL_SHARES:
        trainer = build_trainer(OURS, settings, size)
        queue = trainer.model.head.label_queue
        labels = torch.randint(CLASSES, queue.shape)
        labels[torch.rand(len(labels)) >= share] = -1
        queue.copy_(labels)
        steps[share] = _steps(trainer, size, settings.device, share)
    seconds = _time(steps, _with_rounds(size), settings, tick)
    return [
        dict(
            label_share=share,
            seconds=spread(values),
            ratio_to_no_labels=ratio_spread(values, seconds[0.0]),
        )
        for share, values in seconds.items()
    ]


def measure_batches(
    size: Size, settings: Settings, tick: Callable[[], Any]
) -> list[dict]:
    """Time a step with several batch sizes, of one model."""
    trainer = build_trainer(OURS, settings, size)
    batches = (2, 4) if settings.quick else BATCHES[settings.device]
    steps = {
        batch: _steps(trainer, _with_batch(size, batch), settings.device)
        for batch in batches
    }
    seconds = _time(steps, size, settings, tick)
    return [
        dict(
            batch=batch,
            seconds=spread(values),
            images_per_second=spread([batch / x for x in values]),
        )
        for batch, values in seconds.items()
    ]


def measure_processes(
    settings: Settings, tick: Callable[[], Any]
) -> list[dict]:
    """Time a step on several gloo processes, each with its own batch."""
    size = QUICK if settings.quick else PROCESS_SIZE
    worlds = WORLD_SIZES[:2] if settings.quick else WORLD_SIZES
    results = []
    for world_size in worlds:
        # The ranks wait for each other: each has the time of all.
        seconds = run_processes(steps_of_a_rank, world_size, size)[0]
        images = world_size * size.batch
        results.append(
            dict(
                processes=world_size,
                batch_per_process=size.batch,
                seconds=spread(seconds),
                images_per_second=spread([images / x for x in seconds]),
            )
        )
        tick()
    return results


def steps_of_a_rank(size: Size) -> list[float]:
    """Train on one rank of a group; seconds of each step after the first.

    Args:
        size (Size): Shape of model and batch.
    """
    cfg = our_config()
    set_model_size(cfg, size.depth)
    shape = StepCase(size.batch, image_size=size.image)
    model, optim_wrapper = build_step(cfg, shape, 'cpu')
    model = MMDistributedDataParallel(model, broadcast_buffers=False)
    batches = synthetic_batches(shape, 'cpu', CLASSES)
    step = repeat(
        lambda data: model.train_step(data, optim_wrapper), batches, count=1
    )
    seconds = [
        stopwatch(step, 'cpu') for _ in range(size.warmup + size.rounds)
    ]
    return seconds[size.warmup :]


def _time(
    steps: dict[Any, Callable[[], None]],
    size: Size,
    settings: Settings,
    tick: Callable[[], Any],
) -> dict[Any, list[float]]:
    """Seconds of one step in each round."""
    rounds, device = settings.repeats(size.rounds), settings.device
    seconds = time_interleaved(steps, rounds, device, size.warmup, tick)
    return {
        key: [elapsed / STEPS[device] for elapsed in values]
        for key, values in seconds.items()
    }


def _with_batch(size: Size, batch: int) -> Size:
    return replace(size, batch=batch)


def _with_rounds(size: Size) -> Size:
    return replace(size, rounds=LABEL_ROUNDS * size.rounds)


def _steps(
    trainer: Any, size: Size, device: str, label_share: float = 1.0
) -> Callable[[], None]:
    shape = StepCase(size.batch, image_size=size.image)
    batches = synthetic_batches(shape, device, CLASSES, label_share)
    return repeat(trainer.step, batches, STEPS[device])


def run(
    settings: Settings, tell: Callable[[float, str], None]
) -> dict[str, Any]:
    """Measure all three; see :class:`Case`."""
    size = QUICK if settings.quick else SIZES[settings.device]
    rounds = sum(
        x.warmup + settings.repeats(x.rounds)
        for x in (size, _with_rounds(size))
    )
    ticker = Ticker(tell, rounds + len(WORLD_SIZES))
    torch.manual_seed(0)
    ticker.text = 'labels'
    labels = measure_labels(size, settings, ticker)
    clean_up(settings.device)
    ticker.text = 'batch'
    batches = measure_batches(size, settings, ticker)
    clean_up(settings.device)
    ticker.text = 'processes'
    return dict(
        what='a step of ours without the fast path, from uint8 images on the '
        'device; the queue is covered by the case head',
        time_method=METHOD + '; processes one after the other',
        image=size.image,
        depth=size.depth,
        batch=size.batch,
        labels=labels,
        batches=batches,
        processes=measure_processes(settings, ticker),
        processes_what=f'ResNet-{PROCESS_SIZE.depth} at {PROCESS_SIZE.image}, '
        'gloo, one thread a process, on the CPU',
    )


def rows(result: dict) -> list[tuple[str, str, str, str]]:
    """Rows of the table: each against its smallest."""
    lines = []
    none = in_time(result['labels'][0]['seconds'])
    for entry in result['labels'][1:]:
        lines.append(
            (
                f'step, {100 * entry["label_share"]:g} % labels, to none',
                in_time(entry['seconds']),
                none,
                in_ratio(entry['ratio_to_no_labels']),
            )
        )
    for key, name in (('batches', 'batch'), ('processes', 'processes')):
        for entry in result[key]:
            rate = entry['images_per_second']['median']
            lines.append(
                (
                    f'step, {name} {entry[name]}: {rate:.3g} img/s',
                    in_time(entry['seconds']),
                    '',
                    '',
                )
            )
    return lines


def draw(axes: Axes, result: dict) -> None:
    """Draw images a second over batch and processes."""
    draw_lines(
        axes,
        {
            f'over {name}': [
                (entry[name], entry['images_per_second']['median'])
                for entry in result[key]
            ]
            for key, name in (('batches', 'batch'), ('processes', 'processes'))
        },
    )
    axes.set(
        title='Step of ours',
        xlabel='images a step, or processes',
        ylabel='images per second',
        xscale='log',
    )


CASE = Case(
    name='scaling',
    title='growth with labels, batch and processes',
    seconds=dict(cpu=60, cuda=200),
    run=run,
    rows=rows,
    draw=draw,
)
