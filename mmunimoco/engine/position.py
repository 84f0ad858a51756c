"""Where in the data a run stands, also for another number of processes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Layout:
    """How the images of an epoch are dealt out.

    Args:
        batches (int): Batches an epoch of each process.
        batch_size (int): Images a batch of each process.
        processes (int): Number of processes.
        samples (int): Images of the data set.
    """

    batches: int
    batch_size: int
    processes: int
    samples: int

    @property
    def images(self) -> int:
        """Images a step of all processes together."""
        return self.batch_size * self.processes

    def __str__(self) -> str:
        return (
            f'{self.processes} processes x {self.batch_size} images, '
            f'{self.batches} batches of {self.samples} images an epoch'
        )

    def as_dict(self) -> dict[str, int]:
        """As a checkpoint holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Position:
    """Where a run goes on.

    Args:
        iteration (int): Steps done, in steps of this run.
        start (int): Batches of the present epoch that are done.
        repeated (int): Images of this epoch that are seen a second time,
            because no batch of this run starts where the other one ended.
    """

    iteration: int
    start: int
    repeated: int = 0


def check_equal(layouts: Sequence[Layout]) -> None:
    """See that no process waits for steps that another does not make.

    Args:
        layouts (Sequence[Layout]): Of all processes, in rank order.

    Raises:
        ValueError: If they differ.
    """
    for rank, layout in enumerate(layouts):
        if layout != layouts[0]:
            raise ValueError(
                f'process 0 has {layouts[0]}, and process {rank} has {layout} '
                'in train_dataloader, so that they would wait for each other '
                'without end: give all of them the same data, and an equal '
                "share by sampler=dict(type='DefaultSampler', round_up=True)"
            )


def translate(
    saved: Layout,
    now: Layout,
    epoch: int,
    iteration: int,
    steps_scheduled: bool,
) -> Position:
    """Find the place of another run's step in this one.

    The sampler deals the images of an epoch out in turn, so what was seen is
    the beginning of their common order, whatever the number of processes.

    Args:
        saved (Layout): Of the run that wrote the checkpoint.
        now (Layout): Of this one.
        epoch (int): Whole epochs done.
        iteration (int): Steps done.
        steps_scheduled (bool): Whether a schedule of learning rate or
            momentum counts steps.

    Returns:
        Position: The same one where nothing changed.

    Raises:
        ValueError: If what changed leaves no such place, or schedules that
            mean something else now.
    """
    start = iteration - epoch * saved.batches
    if saved == now:
        return Position(iteration, start)
    if not 0 <= start <= saved.batches:
        raise ValueError(
            f'the checkpoint says {iteration} steps and {epoch} epochs of '
            f'{saved.batches} steps, which do not fit each other'
        )
    if start and saved.samples != now.samples:
        raise ValueError(
            f'the checkpoint was written within an epoch over {saved.samples} '
            f'images, and train_dataloader has {now.samples} now: resume from '
            'the checkpoint of a whole epoch, or with the same data'
        )
    if steps_scheduled and saved.batches != now.batches:
        raise ValueError(
            f'the checkpoint is of {saved}; this run has {now}. Its schedules '
            'count steps, which would not mean the same: keep '
            f'{saved.images} images a step by train_dataloader.batch_size='
            f'{max(1, saved.images // now.processes)}, or begin anew from its '
            'weights (load_from without --resume)'
        )
    done, repeated = divmod(start * saved.images, now.images)
    if start == saved.batches:
        done, repeated = now.batches, 0
    return Position(epoch * now.batches + done, done, repeated)
