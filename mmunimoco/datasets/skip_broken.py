"""Replace samples whose image file is broken by other samples."""

import errno
import numbers
from collections.abc import Mapping
from typing import Any

from mmpretrain.registry import DATASETS

from mmunimoco.utils.config_errors import part_of_config

from .annotations import children_of
from .image_checks import ADVICE, BrokenImageError
from .pipelines import check_loaders
from .wrapper import DatasetWrapper

# Meta information of the data sample of a replacement: the broken files that
# it stands in for, each with the reason. It reaches the training process with
# the batch, from any worker, in the order of the batches.
REPLACED = 'replaced_files'


@DATASETS.register_module()
class SkipBrokenImages(DatasetWrapper):
    """A dataset in which other samples replace those with a broken file.

    A broken sample is replaced by the next one that can be read, with the
    label of that one. Every access tries the file again, so the choice of
    samples and the random numbers drawn depend neither on the worker nor on
    earlier accesses. ``BrokenImagesHook`` lists the broken files.

    Place it around the other wrappers::

        dict(
            type='SkipBrokenImages',
            max_broken=10,
            dataset=dict(type='PartialLabels', label_ratio=0.1, dataset=...),
        )

    Args:
        dataset (dict | Dataset): Any dataset or wrapper of mmengine's kind,
            or its config. Its pipeline must end with ``PackInputs``.
        max_broken (int): Number of distinct broken files to tolerate. With 0
            every broken file is an error that names it.

    Raises:
        TypeError: If ``max_broken`` is not an integer.
        ValueError: If ``max_broken`` is negative.
        BrokenImageError: When a sample is read: more than ``max_broken``
            files are broken, or no sample can be read.
    """

    def __init__(self, dataset: Any, max_broken: int) -> None:
        with part_of_config('dataset'):
            if isinstance(max_broken, bool) or not isinstance(
                max_broken, numbers.Integral
            ):
                raise TypeError(
                    f'max_broken must be an integer, got {max_broken!r}'
                )
            if max_broken < 0:
                raise ValueError(
                    f'max_broken must be 0 or more, got {max_broken}'
                )
            super().__init__(dataset)
        self.max_broken = int(max_broken)
        self._found: dict[str, str] = {}  # in this process

    def __getitem__(self, idx: int) -> Any:
        replaced: dict[str, str] = {}
        for step in range(len(self)):
            index = (idx + step) % len(self)
            try:
                sample = self.dataset[index]
            except Exception as error:  # storage backends raise any kind
                if isinstance(error, KeyError) and error.args == ('img',):
                    check_loaders({'SkipBrokenImages.dataset': self.dataset})
                    raise
                path = self.get_data_info(index).get('img_path')
                if path is None or _is_system_fault(error):
                    raise
                replaced[str(path)] = self._count(str(path), error)
                continue
            if replaced:
                _mark(sample, replaced)
            return sample
        raise BrokenImageError(
            f'none of {len(self)} samples can be read:{list_broken(replaced)}'
        )

    def _count(self, path: str, error: Exception) -> str:
        """Record a broken file; return the reason."""
        text = ' '.join(str(error).removesuffix(ADVICE).split())
        kind = type(error).__name__
        reason = f'{kind}: {text}' if text else kind
        if self.max_broken:
            self._found[path] = reason
            check_broken(self._found, self.max_broken, error)
        elif path in str(error):
            raise error
        else:
            raise BrokenImageError(f'{path}: {reason}') from error
        return reason

    def __repr__(self) -> str:
        return (
            f'SkipBrokenImages(max_broken={self.max_broken}) of\n'
            f'{self.dataset!r}'
        )


def check_broken(
    found: Mapping[str, str], limit: int, cause: Exception | None = None
) -> None:
    """Raise if there are more broken files than allowed.

    Args:
        found (Mapping[str, str]): Path and reason of each broken file.
        limit (int): Number of files allowed.
        cause (Exception, optional): The error that revealed the last one.

    Raises:
        BrokenImageError: Lists all of them.
    """
    if len(found) > limit:
        raise BrokenImageError(
            f'{len(found)} files are broken, but max_broken={limit}: repair '
            'or remove them, or raise max_broken of SkipBrokenImages'
            f'{list_broken(found)}'
        ) from cause


def list_broken(found: Mapping[str, str]) -> str:
    """Format broken files, each on a new line."""
    lines = [
        reason if name in reason else f'{name}: {reason}'
        for name, reason in sorted(found.items())
    ]
    return ''.join(f'\n  {line}' for line in lines)


def broken_files(data_batch: Any) -> dict[str, str]:
    """Return the broken files that the samples of a batch stand in for.

    Args:
        data_batch (dict): A batch of a data loader of mmengine.

    Returns:
        dict[str, str]: Path and reason; empty for batches of another form.
    """
    is_known = isinstance(data_batch, Mapping)
    found = {}
    for sample in (is_known and data_batch.get('data_samples')) or ():
        found.update(replaced_files(sample))
    return found


def replaced_files(data_sample: Any) -> dict[str, str]:
    """Return the broken files that a data sample stands in for."""
    return getattr(data_sample, REPLACED, None) or {}


def skip_limit(dataset: Any) -> int:
    """Return the largest ``max_broken`` in a tree of wrappers, 0 if none."""
    if isinstance(dataset, SkipBrokenImages):
        return dataset.max_broken
    return max(map(skip_limit, children_of(dataset)), default=0)


def _mark(sample: Any, replaced: dict[str, str]) -> None:
    data_sample = (
        sample.get('data_samples') if isinstance(sample, dict) else None
    )
    if not hasattr(data_sample, 'set_metainfo'):
        raise BrokenImageError(
            'SkipBrokenImages needs a pipeline that ends with PackInputs: '
            'without data samples the broken files cannot be reported'
            f'{list_broken(replaced)}'
        )
    data_sample.set_metainfo({REPLACED: replaced})


def _is_system_fault(error: Exception) -> bool:
    """Whether the machine, not the file, caused it."""
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError)
        and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    )
