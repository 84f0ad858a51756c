"""Other samples in the place of those whose file is broken."""

import errno
import numbers
from collections.abc import Iterator, Mapping
from typing import Any

# What the data sample of a replacement has in its meta information: the broken
# files that it stands for, each with what is wrong. So it reaches the training
# process with the batch, from any worker, and in the order of the batches.
REPLACED = 'replaced_files'


class BrokenImageError(ValueError):
    """An image that cannot be read rightly, or too many of them."""


class BrokenFiles:
    """Loads samples, and another one where a file is broken.

    In the place of a broken one comes the next that can be read, with its own
    label. Each time it is tried anew, so which sample comes, and the random
    numbers that are drawn, depend neither on the worker nor on what was loaded
    before.

    Args:
        limit (int): Number of different files that may be broken; 0 makes
            each an error.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is negative.
    """

    def __init__(self, limit: int) -> None:
        if not isinstance(limit, numbers.Integral) or isinstance(limit, bool):
            raise TypeError(f'skip_broken must be an integer, got {limit!r}')
        if limit < 0:
            raise ValueError(f'skip_broken must be 0 or more, got {limit}')
        self.limit = int(limit)
        self.found: dict[str, str] = {}

    def load(self, dataset: Any, index: int) -> Any:
        """Get a sample, or the one that replaces it.

        Args:
            dataset (Dataset): Of mmengine's kind or a wrapper of one.
            index (int): Of the sample.

        Returns:
            Any: What the dataset's pipeline gives.

        Raises:
            BrokenImageError: If more files are broken than may be.
            Exception: If none may be, what the pipeline raised if it names
                the file, else a ``BrokenImageError`` that does.
        """
        replaced: dict[str, str] = {}
        for step in range(len(dataset)):
            place = (index + step) % len(dataset)
            try:
                sample = dataset[place]
            except Exception as error:  # backends raise what they like
                name = _name(dataset, place)
                if name is None or _is_of_the_machine(error):
                    raise
                replaced[name] = self._add(name, error)
                continue
            if replaced:
                _mark(sample, replaced)
            return sample
        raise BrokenImageError(
            f'none of {len(dataset)} samples can be read:'
            f'{list_broken(replaced)}'
        )

    def _add(self, name: str, error: Exception) -> str:
        reason = _reason(error)
        if self.limit:
            self.found[name] = reason
            check_broken(self.found, self.limit, error)
        elif name in str(error):
            raise error
        else:
            raise BrokenImageError(f'{name}: {reason}') from error
        return reason


def check_broken(
    found: Mapping[str, str], limit: int, cause: Exception | None = None
) -> None:
    """Refuse more broken files than may be.

    Args:
        found (Mapping[str, str]): Path and reason of each.
        limit (int): How many may be.
        cause (Exception, optional): That one was found by.

    Raises:
        BrokenImageError: That names all of them.
    """
    if len(found) > limit:
        raise BrokenImageError(
            f'{len(found)} files are broken and skip_broken={limit}: repair '
            'or remove them, or set skip_broken of PartialLabels higher'
            f'{list_broken(found)}'
        ) from cause


def list_broken(found: Mapping[str, str]) -> str:
    """A line for each file, after a line break."""
    lines = [
        reason if name in reason else f'{name}: {reason}'
        for name, reason in sorted(found.items())
    ]
    return ''.join(f'\n  {line}' for line in lines)


def broken_files(data_batch: Any) -> dict[str, str]:
    """The broken files that samples of a batch stand for, with reasons.

    Args:
        data_batch (dict | list): As a data loader of mmengine gives it.

    Returns:
        dict[str, str]: Empty for batches of another form.
    """
    found = {}
    for sample in _data_samples(data_batch):
        found.update(replaced_files(sample))
    return found


def replaced_files(data_sample: Any) -> dict[str, str]:
    """The broken files that a data sample stands for, with reasons."""
    return getattr(data_sample, REPLACED, None) or {}


def skip_limit(dataset: Any) -> int:
    """``skip_broken`` of a dataset, or the largest below a wrapper."""
    own = getattr(dataset, 'skip_broken', None)
    if isinstance(own, int):
        return own
    below = getattr(dataset, 'datasets', None) or [
        getattr(dataset, 'dataset', None)
    ]
    return max((skip_limit(x) for x in below if x is not None), default=0)


def _data_samples(data_batch: Any) -> Iterator[Any]:
    if isinstance(data_batch, Mapping):
        yield from data_batch.get('data_samples') or ()
    elif isinstance(data_batch, list | tuple):
        for item in data_batch:
            if isinstance(item, Mapping) and 'data_samples' in item:
                yield item['data_samples']


def _mark(sample: Any, replaced: dict[str, str]) -> None:
    data_sample = (
        sample.get('data_samples') if isinstance(sample, dict) else None
    )
    if not hasattr(data_sample, 'set_metainfo'):
        raise BrokenImageError(
            'skip_broken needs a pipeline that ends with PackInputs: without '
            'its data samples nobody could be told of the broken files'
            f'{list_broken(replaced)}'
        )
    data_sample.set_metainfo({REPLACED: replaced})


def _name(dataset: Any, index: int) -> str | None:
    """Path of the sample's image; None if it is in no file."""
    if not hasattr(dataset, 'get_data_info'):
        return None
    path = dataset.get_data_info(index).get('img_path')
    return None if path is None else str(path)


def _is_of_the_machine(error: Exception) -> bool:
    """Whether it says nothing about the file."""
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError)
        and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    )


def _reason(error: Exception) -> str:
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text}' if text else type(error).__name__
