"""mmcv's ``LoadImageFromFile``, which refuses what is broken by its name."""

from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmpretrain.registry import TRANSFORMS

from .decoding import decode_whole, fitting_reduction
from .image_checks import MAX_PIXELS, check_whole
from .skip_broken import BrokenImageError


@TRANSFORMS.register_module(name='LoadImageFromFile', force=True)
class LoadCheckedImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile``, which refuses what is broken by its name.

    It takes the place of mmcv's in mmpretrain's pipelines once mmunimoco is
    imported. What it loads is the same, bit by bit, but

    - an image that was cut off, or is damaged otherwise as far as can be
      seen, is an error, where the decoder would fill it with gray;
    - every error names the file;
    - an image of more than ``max_pixels`` is decoded at a smaller size, if it
      is a JPEG, or is an error.

    Args:
        *args: Of mmcv's.
        max_pixels (int): The most pixels to decode. Defaults to 178 956 970,
            where Pillow too sees a decompression bomb.
        **options: Of mmcv's: ``color_type``, ``imdecode_backend``,
            ``ignore_empty``, ``backend_args``, ``to_float32``.
    """

    def __init__(
        self, *args: Any, max_pixels: int = MAX_PIXELS, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.max_pixels = max_pixels

    def transform(self, results: dict) -> dict | None:
        """Load.

        Args:
            results (dict): Annotation of a sample, with ``img_path``.

        Returns:
            dict | None: The same with ``img``, ``img_shape`` and
            ``ori_shape``; None if the image does not load and
            ``ignore_empty`` is set.

        Raises:
            OSError: If the file cannot be read.
            BrokenImageError: If it is no image or a broken one.
        """
        try:
            image = self._load(str(results['img_path']))
        except Exception:
            # Of any kind: backends raise what they like.
            if self.ignore_empty:
                return None
            raise
        if self.to_float32:
            image = image.astype(np.float32)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _load(self, path: str) -> np.ndarray:
        content = self._read(path)
        if self.color_type == 'color' and self.imdecode_backend == 'cv2':
            return decode_whole(content, path, self.max_pixels)
        check_whole(content, path)
        fitting_reduction(content, path, self.max_pixels)
        try:
            image = mmcv.imfrombytes(
                content, flag=self.color_type, backend=self.imdecode_backend
            )
        except Exception as error:
            raise BrokenImageError(f'{path}: {error}') from error
        if image is None:
            raise BrokenImageError(
                f'{path} is no image that {self.imdecode_backend} can decode'
            )
        return image

    def _read(self, path: str) -> bytes:
        if self.file_client_args is not None:
            client = fileio.FileClient.infer_client(
                self.file_client_args, path
            )
            content = client.get(path)
        else:
            content = fileio.get(path, backend_args=self.backend_args)
        if content is None:  # mmengine's word for "no such key" of LMDB
            raise FileNotFoundError(
                f'{path!r} is not in the storage that backend_args '
                f'{self.backend_args} name'
            )
        return content
