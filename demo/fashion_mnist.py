"""The demo's data: 6 000 + 2 000 images of Fashion-MNIST, no download."""

import numpy as np
from mmpretrain.datasets.base_dataset import BaseDataset
from mmpretrain.datasets.categories import FASHIONMNIST_CATEGORITES
from mmpretrain.registry import DATASETS

from .fashion_mnist_archive import DEFAULT_ARCHIVE, read_archive


@DATASETS.register_module()
class DemoFashionMNIST(BaseDataset):
    """A class-balanced subset of Fashion-MNIST that comes with the package.

    600 training and 200 test images for each of the 10 classes, 28 x 28.
    A sample has

    - ``img``: (28, 28, channels) uint8, or (28, 28) for ``channels=1``, which
      is what mmpretrain's own ``FashionMNIST`` gives;
    - ``gt_label``: int in [0, 10);
    - ``img_path``: a *name* such as ``train_00042.png``, unique and lasting
      (the position in the original file), so that label lists work. There is
      no such file: pipelines start without ``LoadImageFromFile``.

    Args:
        split: 'train' or 'test'.
        archive: Another archive of the same form, relative to ``data_root``
            where one is given. Default: the committed subset.
        channels: 3 repeats the gray value, so that colour transforms, data
            preprocessors and backbones work unchanged; 1 leaves it single.
        data_root: Root of ``archive``.
        **kwargs: As in mmpretrain's ``BaseDataset`` (``pipeline``,
            ``indices``, ``test_mode``, ``metainfo``, ``lazy_init``...).

    Raises:
        ValueError: Unknown split, ``channels`` neither 1 nor 3, or an archive
            that is damaged or of another kind.
        FileNotFoundError: No archive at the given path.
    """

    METAINFO = {'classes': FASHIONMNIST_CATEGORITES}

    def __init__(
        self,
        split: str = 'train',
        archive: str = '',
        channels: int = 3,
        data_root: str = '',
        **kwargs,
    ):
        if channels not in (1, 3):
            raise ValueError(f'channels must be 1 or 3, got {channels!r}')
        self.split = split
        self.channels = channels
        super().__init__(
            ann_file=archive or DEFAULT_ARCHIVE, data_root=data_root, **kwargs
        )

    def load_data_list(self) -> list:
        """Read the archive; one dict a sample, see the class."""
        images, labels, indices = read_archive(self.split, self.ann_file)
        if self.channels == 3:
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

    def extra_repr(self) -> list:
        """Lines for ``repr``."""
        return [f'Archive: \t{self.ann_file}', f'Split: \t{self.split}']
