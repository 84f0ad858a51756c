"""An image loader that rejects broken files and names them."""

from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmpretrain.registry import TRANSFORMS

from .decoding import (
    MAX_PIXELS,
    ImageHeader,
    decode_whole,
    min_reduction,
    read_header,
)
from .image_checks import broken, check_complete

# Of 8 bits, and converted to RGB as OpenCV does.
_PILLOW_MODES = ('1', 'L', 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr')


@TRANSFORMS.register_module()
class CheckedLoadImageFromFile(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` that rejects broken files.

    It returns the same pixels, bit by bit, but for these differences:

    - a truncated or visibly damaged image is an error, where the decoder
      would fill it with gray;
    - every error names the file;
    - what 'pillow' and 'turbojpeg' would decode to other pixels than 'cv2'
      (16 bits, which Pillow clips to 255; gray with alpha; rotation by EXIF
      data in turbojpeg, and of a WebP in Pillow) is decoded by 'cv2', unless
      ``color_type`` is 'unchanged';
    - a JPEG of more than ``max_pixels`` is decoded at a reduced size; another
      image of that size is an error;
    - an image without ``img_path`` that is loaded already is left as it is:
      mmpretrain's inferencers load images, and take mmcv's transform alone out
      of the pipeline.

    Args:
        *args: Arguments of mmcv's transform.
        max_pixels (int): The most pixels to decode. Defaults to 178 956 970,
            Pillow's limit for decompression bombs.
        **kwargs: Arguments of mmcv's transform: ``color_type``,
            ``imdecode_backend``, ``ignore_empty``, ``backend_args``,
            ``to_float32``.

    Raises:
        ValueError: If ``imdecode_backend`` is 'tifffile', which knows neither
            8 bits nor BGR, and ``color_type`` is not 'unchanged'.
    """

    def __init__(
        self, *args: Any, max_pixels: int = MAX_PIXELS, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if self.color_type != 'unchanged' and (
            self.imdecode_backend == 'tifffile'
        ):
            raise ValueError(
                "imdecode_backend='tifffile' returns the pixels of a file as "
                'they are, not 8 bits in the order BGR: use '
                "imdecode_backend='cv2', or color_type='unchanged' if the "
                'pipeline converts them'
            )
        self.max_pixels = max_pixels

    def transform(self, results: dict) -> dict | None:
        """Load the image at ``img_path``.

        Args:
            results (dict): Annotation of a sample.

        Returns:
            dict | None: The annotation with ``img``, ``img_shape`` and
            ``ori_shape``; None if the image does not load and
            ``ignore_empty`` is set.

        Raises:
            OSError: If the file cannot be read.
            BrokenImageError: If it is broken or not an image.
        """
        if 'img' in results and 'img_path' not in results:
            return results
        try:
            image = self._load(str(results['img_path']))
        except Exception:  # storage backends raise errors of any kind
            if self.ignore_empty:
                return None
            raise
        if self.to_float32:
            image = image.astype(np.float32)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _load(self, path: str) -> np.ndarray:
        if self.file_client_args is not None:  # older form of backend_args
            client = fileio.FileClient.infer_client(
                self.file_client_args, path
            )
            content = client.get(path)
        else:
            content = read_file(path, self.backend_args)
        if self.color_type == 'color' and self.imdecode_backend == 'cv2':
            return decode_whole(content, path, self.max_pixels)
        check_complete(content, path)
        header = read_header(content)
        min_reduction(header, path, self.max_pixels)
        backend = self._backend_for(header)
        fault = f'is not an image that {backend} can decode'
        try:
            image = mmcv.imfrombytes(
                content, flag=self.color_type, backend=backend
            )
        except Exception as error:
            raise broken(path, content, f'{fault}: {error}') from error
        if image is None:
            raise broken(path, content, fault)
        return image

    def _backend_for(self, header: ImageHeader | None) -> str | None:
        """The backend, or 'cv2' where it would give other pixels."""
        backend = self.imdecode_backend
        if header is None or self.color_type == 'unchanged':
            return backend
        alike = {
            'pillow': header.mode in _PILLOW_MODES and not header.turned,
            'turbojpeg': header.plain,
        }
        return backend if alike.get(backend, True) else 'cv2'


def read_file(path: str, backend_args: dict | None) -> bytes:
    """Read a file through mmengine's storage backends.

    Raises:
        OSError: If it cannot be read.
        FileNotFoundError: If the backend returns None, as LMDB's does for an
            unknown key.
    """
    content = fileio.get(path, backend_args=backend_args)
    if content is None:
        raise FileNotFoundError(
            f'{path!r} is not in the storage given by '
            f'backend_args={backend_args}'
        )
    return content
