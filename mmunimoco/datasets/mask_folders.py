"""Semantic segmentation from a folder of images and a folder of masks."""

import os
import os.path as osp

import numpy as np
from mmengine.dataset import BaseDataset
from mmpretrain.registry import DATASETS

from mmunimoco.utils.checkpoint import shorten

_IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
_MASKS = '.png'


@DATASETS.register_module()
class MaskFolders(BaseDataset):
    """Images in one folder and their masks, PNG files, in another.

    A mask has the path of its image, with the suffix ``.png``. For the
    pipelines of mmseg; unlike mmseg's ``BaseSegDataset``, images may have
    different suffixes, and an empty folder or a missing mask is an error
    before training starts.

    Args:
        data_prefix (dict): The two folders ``img_path`` and ``seg_map_path``,
            relative to ``data_root``; searched recursively.
        metainfo (dict): Must have ``classes``, the names of the pixel values
            0, 1, ...
        reduce_zero_label (bool): Whether to ignore pixels of value 0, so that
            1 is the first class. Defaults to False.
        **options: Other arguments of mmengine's ``BaseDataset``.
    """

    def __init__(
        self,
        data_prefix: dict,
        metainfo: dict,
        reduce_zero_label: bool = False,
        **options,
    ) -> None:
        self.reduce_zero_label = reduce_zero_label
        colors = np.random.RandomState(42).randint(
            0, 255, (len(metainfo['classes']), 3)
        )
        metainfo = {'palette': colors.tolist(), **metainfo}
        super().__init__(data_prefix=data_prefix, metainfo=metainfo, **options)

    def load_data_list(self) -> list[dict]:
        """Find the images and their masks.

        Returns:
            list[dict]: Annotations for mmseg's pipelines, sorted by path.

        Raises:
            FileNotFoundError: If a folder or a mask does not exist, or there
                are no images.
            ValueError: If two images would share a mask.
        """
        images = self.data_prefix['img_path']
        masks = self.data_prefix['seg_map_path']
        names = _images_by_stem(images)
        labels = {osp.splitext(n)[0]: n for n in _files(masks, (_MASKS,))}
        missing = [f'{stem}{_MASKS}' for stem in names if stem not in labels]
        if missing:
            raise FileNotFoundError(
                f'{len(missing)} of the {len(names)} images in {images} have '
                f'no mask in {masks}, which has {len(labels)} {_MASKS} files: '
                f'missing are {shorten(missing)}. A mask has the name of its '
                f'image with the suffix {_MASKS}.'
            )
        return [
            dict(
                img_path=osp.join(images, name),
                seg_map_path=osp.join(masks, labels[stem]),
                label_map=None,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            for stem, name in names.items()
        ]


def _images_by_stem(folder: str) -> dict[str, str]:
    """Map relative paths without suffix to relative paths of images."""
    names: dict[str, str] = {}
    for name in _files(folder, _IMAGES):
        stem = osp.splitext(name)[0]
        if stem in names:
            raise ValueError(
                f'{folder} has both {names[stem]} and {name}, which would '
                'share a mask: keep one file per image.'
            )
        names[stem] = name
    if not names:
        found = sorted({osp.splitext(name)[1] for name in _files(folder)})
        raise FileNotFoundError(
            f'{folder} has no images ({", ".join(_IMAGES)}); it has '
            f'{"files of " + ", ".join(found) if found else "no files"}.'
        )
    return names


def _files(folder: str, suffixes: tuple[str, ...] = ('',)) -> list[str]:
    """Return relative paths of the visible files with these suffixes."""
    if not osp.isdir(folder):
        raise FileNotFoundError(f'the folder {folder} does not exist')
    return sorted(
        osp.relpath(osp.join(parent, name), folder)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(suffixes) and not name.startswith('.')
    )
