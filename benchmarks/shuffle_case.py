"""Shuffled BN: bytes that a process sends, counted on gloo processes."""

from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes

from .case import OURS, PUBLISHED, Case, Settings
from .formats import draw_lines, in_bytes
from .shuffle_bytes import measure_shuffle_bytes

WORLD_SIZES = (2, 4, 8)
# The published batch of a GPU at the published size, float32.
BATCH, IMAGE_SHAPE = 32, (3, 224, 224)
QUICK_SHAPE = (3, 32, 32)


def run(
    settings: Settings, tell: Callable[[float, str], None]
) -> dict[str, Any]:
    """Count for each number of processes; see :class:`Case`."""
    shape = QUICK_SHAPE if settings.quick else IMAGE_SHAPE
    worlds = WORLD_SIZES[:1] if settings.quick else WORLD_SIZES
    sent = {}
    for index, world_size in enumerate(worlds):
        tell(index / len(worlds), f'{world_size} processes')
        sent.update(measure_shuffle_bytes((world_size,), BATCH, shape))
    return dict(
        bytes_per_rank={w: x['all_to_all'] for w, x in sent.items()},
        all_gather_bytes_per_rank={
            w: x['all_gather'] for w, x in sent.items()
        },
        what='bytes that a process hands to the collectives for other '
        'processes, for the key images of one step, mean over the processes, '
        'by number of processes; counted in real gloo groups',
        batch_per_rank=BATCH,
        image_shape=list(shape),
    )


def rows(result: dict) -> list[tuple[str, str, str, str]]:
    """Rows of the table: all_to_all against the published all_gather."""
    others = result['all_gather_bytes_per_rank']
    return [
        (
            f'bytes a step and process, {world_size} processes',
            in_bytes(ours),
            in_bytes(others[world_size]),
            f'{ours / others[world_size]:.3g}',
        )
        for world_size, ours in result['bytes_per_rank'].items()
    ]


def draw(axes: Axes, result: dict) -> None:
    """Draw bytes over the number of processes."""
    draw_lines(
        axes,
        {
            OURS: [
                (world_size, count / 1e6)
                for world_size, count in result['bytes_per_rank'].items()
            ],
            PUBLISHED: [
                (world_size, count / 1e6)
                for world_size, count in result[
                    'all_gather_bytes_per_rank'
                ].items()
            ],
        },
    )
    axes.set(
        title=f'Shuffled BN, batch {BATCH} a process',
        xlabel='processes',
        ylabel='MB sent a step and process',
        ylim=0,
    )


CASE = Case(
    name='shuffle',
    title='bytes of shuffled BN',
    seconds=dict(cpu=20, cuda=20),
    run=run,
    rows=rows,
    draw=draw,
    headlines=('bytes_per_rank',),
)
