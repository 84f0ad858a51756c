"""Images and labels of one ``.npz`` file."""

import lzma
import os.path as osp
import zipfile
import zlib
from typing import NamedTuple

import numpy as np
from mmpretrain.datasets.base_dataset import BaseDataset
from mmpretrain.registry import DATASETS

# Raised by numpy and zipfile on a truncated, altered or foreign file.
_READ_ERRORS = (
    *(EOFError, NotImplementedError, OSError, TypeError, ValueError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


@DATASETS.register_module()
class NpzImages(BaseDataset):
    """Classification dataset stored in a single ``.npz`` file.

    The file holds, for each split, the arrays

    - ``{split}_images``: (N, H, W) or (N, H, W, 3) uint8;
    - ``{split}_labels``: (N,) integers, -1 for an unlabeled image;
    - ``{split}_indices``: optional, (N,) unique integers that name the
      images; 0 to N - 1 if absent;

    and optionally ``classes``, the class names. A ``metainfo`` argument takes
    precedence over it.

    A sample has ``img`` ((H, W, channels) uint8, or (H, W) for
    ``channels=1``), ``gt_label`` and ``img_path``, a name such as
    ``train_00042.png`` made of split and index. There is no such file: it
    identifies the image in label lists, and pipelines start without
    ``LoadImageFromFile``.

    Args:
        ann_file (str): The ``.npz`` file, relative to ``data_root`` if that
            is given.
        split (str): Prefix of the arrays to read. Defaults to 'train'.
        channels (int): 3 repeats gray images in three channels, 1 keeps them
            as they are. Color images are passed on as stored and need 3.
            Defaults to 3.
        **kwargs: Other arguments of mmpretrain's ``BaseDataset``
            (``data_root``, ``pipeline``, ``indices``, ``metainfo``...).

    Raises:
        FileNotFoundError: If ``ann_file`` does not exist.
        ValueError: If the file is damaged, lacks the split or holds arrays
            of another form, or if ``channels`` does not fit.
    """

    def __init__(
        self, ann_file: str, split: str = 'train', channels: int = 3, **kwargs
    ) -> None:
        if channels not in (1, 3):
            raise ValueError(f'channels must be 1 or 3, got {channels!r}')
        self.split = split
        self.channels = channels
        super().__init__(ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the split; one dict per sample, see the class."""
        images, labels, indices, classes = read_npz_split(
            self.ann_file, self.split
        )
        if classes is not None:
            self._metainfo.setdefault('classes', tuple(classes.tolist()))
        if self.channels == 1 and images.ndim == 4:
            raise ValueError(
                f'channels=1 needs gray images, but {self.split}_images of '
                f'{self.ann_file!r} has shape {images.shape}; use channels=3'
            )
        if self.channels == 3 and images.ndim == 3:
            images = np.repeat(images[..., None], 3, axis=-1)
        return [
            dict(
                img=image,
                img_path=f'{self.split}_{index:05d}.png',
                gt_label=int(label),
            )
            for image, label, index in zip(
                images, labels, indices, strict=True
            )
        ]

    def extra_repr(self) -> list[str]:
        """Lines for ``repr``."""
        return [f'File: \t{self.ann_file}', f'Split: \t{self.split}']


class NpzSplit(NamedTuple):
    """One split of a file that :class:`NpzImages` reads.

    Attributes:
        images: (N, H, W) or (N, H, W, 3) uint8.
        labels: (N,) int64, -1 for an unlabeled image.
        indices: (N,) int64, unique and not negative.
        classes: (C,) str, or None if the file does not name its classes.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    classes: np.ndarray | None = None


def read_npz_split(path: str, split: str) -> NpzSplit:
    """Read and check one split of a file that :class:`NpzImages` reads.

    Args:
        path (str): The ``.npz`` file.
        split (str): Prefix of the arrays.

    Returns:
        NpzSplit: Its arrays.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is damaged, lacks the split or holds arrays of
            another form.
    """
    if not osp.isfile(path):
        raise FileNotFoundError(f'no .npz file at {path!r}')
    names = {name: f'{split}_{name}' for name in NpzSplit._fields}
    names['classes'] = 'classes'
    try:
        with np.load(path, allow_pickle=False) as file:
            # A bare .npy file loads as an array.
            stored = set(getattr(file, 'files', ()))
            arrays = {
                field: file[name]
                for field, name in names.items()
                if name in stored
            }
    except _READ_ERRORS as error:
        raise ValueError(
            f'{path!r} is damaged or not an .npz file: {error}'
        ) from error
    for field in ('images', 'labels'):
        if field not in arrays:
            raise ValueError(
                f'{path!r} has no array {names[field]!r} (split={split!r}); '
                f'it holds {", ".join(sorted(stored)) or "nothing"}'
            )
    arrays.setdefault('indices', np.arange(len(arrays['labels'])))
    part = NpzSplit(**arrays)
    faults = _faults(part)
    if faults:
        raise ValueError(f'{path!r}, split {split!r}: {"; ".join(faults)}')
    return part._replace(
        labels=part.labels.astype(np.int64),
        indices=part.indices.astype(np.int64),
    )


def _faults(part: NpzSplit) -> list[str]:
    images, labels, indices, classes = part
    gray = images.ndim == 3
    color = images.ndim == 4 and images.shape[3] == 3
    faults = []
    if images.dtype != np.uint8 or not (gray or color) or not images.size:
        faults.append(
            'images must be uint8 of shape (N, H, W) or (N, H, W, 3) with '
            f'N > 0, got {images.dtype} {images.shape}'
        )
    for name, array in (('labels', labels), ('indices', indices)):
        if array.dtype.kind not in 'iu' or array.shape != images.shape[:1]:
            faults.append(
                f'{name} must be one integer for each image, got '
                f'{array.dtype} {array.shape} for images {images.shape}'
            )
    if faults:
        return faults
    if labels.min() < -1:
        faults.append(f'labels must be at least -1, got {labels.min()}')
    if classes is not None and labels.max() >= classes.size:
        faults.append(
            f'label {labels.max()} is outside of the {classes.size} classes'
        )
    if indices.min() < 0 or len(np.unique(indices)) < len(indices):
        faults.append('indices must be unique and not negative')
    return faults
