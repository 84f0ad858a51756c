"""Estimate the speed on many H100s from what one of them has shown.

python -m benchmarks.estimate --gpus 8 64 512

The cost model, calibrated on the records in ``docs/benchmarks/h100``. No run
on more than one GPU has confirmed it.
"""

import argparse
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

from rich.console import Console

from .cost_model import Hardware, Step, seconds_per_step, step_cost, step_times
from .tables import print_table

H100 = Hardware(
    'H100, NVLink, 400 Gbit/s per GPU',
    *(989e12, 3.35e12, 450e9, 50e9, 8, 16),
)
RECORD = Path(__file__).parents[1] / 'docs/benchmarks/h100/prof.json'
# What was timed: the ImageNet config, in bfloat16, with 16 loader processes.
BATCH, WORKERS = 256, 16
IMAGES, EPOCHS = 1_281_167, 200
BATCHES = (32, 256)
COLUMNS = (
    *('GPUs', 'images a GPU', 'images/s, host hidden', '% of linear'),
    *('hours, 200 epochs', 'images/s, host as measured'),
)


@cache
def calibrated_h100() -> Hardware:
    """Return an H100 with what was measured on one.

    The whole step at batch 256, launches and waiting included, is taken as
    the time of its memory traffic: the share of the data sheet's rate that
    follows holds for other batches, as traffic grows with the batch.
    """
    record = read_record()
    plain = record['ours_fast_b256']
    traffic = step_cost(Step(gpus=1, batch=BATCH)).traffic_bytes
    augmented = 1 / record['e2e ours, fast']['step_alone']
    return replace(
        H100,
        memory_share=traffic / (plain['ms'] / 1000 * H100.memory_rate),
        augmenting=augmented - 1 / plain['img_s'],
        host=plain['host_ms'] / 1000,
    )


def read_record() -> dict:
    """Read the record of the timed step."""
    return json.loads(RECORD.read_text())


def core_seconds() -> float:
    """Seconds of a core for both views of an image, as measured there."""
    return WORKERS / read_record()['loader16_img_s']


def total_rate(gpus: int, batch: int, host: bool) -> float:
    """Images per second of all GPUs.

    Args:
        gpus (int): Number of GPUs.
        batch (int): Images per GPU and step.
        host (bool): Whether the host needs the time per step that it needed
            when measured, or is never waited for.
    """
    step = Step(gpus=gpus, batch=batch)
    times = step_times(step, calibrated_h100(), 0.0)
    if not host:
        times['host'] = 0.0
    return gpus * batch / seconds_per_step(times)


def estimate_rows(gpus: list[int]) -> list[tuple[str, ...]]:
    """Return the table of estimates, without image loading."""
    rows = []
    for count in gpus:
        for batch in BATCHES:
            rate = total_rate(count, batch, host=False)
            linear = count * total_rate(1, batch, host=False)
            rows.append(
                (
                    *(f'{count}', f'{batch}', f'{rate:.0f}'),
                    f'{100 * rate / linear:.0f}',
                    f'{EPOCHS * IMAGES / rate / 3600:.2g}',
                    f'{total_rate(count, batch, host=True):.0f}',
                )
            )
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.estimate',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--gpus', type=int, nargs='+', default=[1, 8, 64, 512])
    args = parser.parse_args(argv)
    if min(args.gpus) < 1:
        parser.error(f'--gpus must be at least 1, got {min(args.gpus)}')
    title = 'Estimate for H100s, ResNet-50 at 224'
    print_table(Console(), title, COLUMNS, estimate_rows(args.gpus))
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
