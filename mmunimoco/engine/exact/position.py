"""The position of a run in its data, also for another number of processes."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """How the images of an epoch are split into batches.

    Attributes:
        batches (int): Batches per epoch and process.
        batch_size (int): Images per batch of a process; 0 if unknown.
        processes (int): Number of processes.
        samples (int): Images of the dataset.
    """

    batches: int
    batch_size: int
    processes: int
    samples: int

    @property
    def images(self) -> int:
        """Images per step of all processes together."""
        return self.batch_size * self.processes

    def __str__(self) -> str:
        size = self.batch_size or 'unknown'
        return (
            f'{self.processes} processes x {size} images, '
            f'{self.batches} batches of {self.samples} images an epoch'
        )


@dataclass(frozen=True)
class Position:
    """Where a run resumes.

    Attributes:
        iteration (int): Steps done, counted in steps of this run.
        start (int): Batches of the present epoch that are done.
        repeated (int): Images of this epoch that are seen twice, because no
            batch of this run starts where the saved one ended.
    """

    iteration: int
    start: int
    repeated: int = 0


def translate(
    saved: Layout,
    now: Layout,
    epoch: int,
    iteration: int,
    steps_scheduled: bool,
) -> Position:
    """Find the position in this run of a step in another one.

    The sampler deals the images of an epoch to the processes in turn, so the
    images seen so far are the first ones of the common order, whatever the
    number of processes.

    Args:
        saved (Layout): Layout of the run that wrote the checkpoint.
        now (Layout): Layout of this run.
        epoch (int): Whole epochs done.
        iteration (int): Steps done.
        steps_scheduled (bool): Whether a schedule of learning rate or
            momentum, or a warm-up that goes on, counts steps.

    Returns:
        Position: The position; the same one if nothing changed.

    Raises:
        ValueError: If there is no such position, or schedules would change
            their meaning.
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
            'count steps, which would change their meaning: '
            f'{how_to_keep(saved, now)}'
        )
    done, repeated = divmod(start * saved.images, now.images)
    if start == saved.batches:
        done, repeated = now.batches, 0
    return Position(epoch * now.batches + done, done, repeated)


def how_to_keep(saved: Layout, now: Layout) -> str:
    """What to do so that an epoch has as many steps as before, for errors."""
    keep = (
        f'keep {saved.images} images a step by train_dataloader.batch_size='
        f'{max(1, saved.images // now.processes)}'
    )
    if saved.images == now.images:
        keep = f'train on as many images as before, {saved.samples}'
    return (
        f'{keep}, or start a new run from its weights (load_from without '
        '--resume)'
    )


def check_equal(layouts: Sequence[Layout]) -> None:
    """Refuse processes with different numbers of steps: one would hang.

    Raises:
        ValueError: If they differ.
    """
    for rank, layout in enumerate(layouts):
        if layout != layouts[0]:
            raise ValueError(
                f'process 0 has {layouts[0]}, and process {rank} has {layout} '
                'in train_dataloader, so they would wait for each other '
                'forever: give all of them the same data, and equal shares '
                "by sampler=dict(type='DefaultSampler', round_up=True)"
            )
