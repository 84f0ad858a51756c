"""Put the images of a small data set on the device, once."""

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor

from mmunimoco.models import TwoViewAugment
from mmunimoco.utils.checkpoint import bare_model


@HOOKS.register_module()
class ImagesToDeviceHook(Hook):
    """Put the images of the training set on the device, once.

    For sets such as CIFAR, whose images have one size and are in memory
    anyway (150 MB). With ``IndexAsImage`` in the pipeline, batches bring
    indices alone, and :class:`TwoViewAugment` with ``crop`` makes the views.
    """

    def before_train(self, runner: Runner) -> None:
        """Collect the images and hand them to the data preprocessor.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If the data preprocessor is another one, or the data
                set cannot be addressed by indices.
        """
        preprocessor = bare_model(runner.model).data_preprocessor
        if not isinstance(preprocessor, TwoViewAugment):
            raise ValueError(
                'ImagesToDeviceHook needs the data preprocessor '
                f'TwoViewAugment, but it is {type(preprocessor).__name__}'
            )
        images = stack_images(runner.train_dataloader.dataset)
        preprocessor.keep_images(images)
        runner.logger.info(
            f'ImagesToDeviceHook: {len(images)} images, '
            f'{images.numel() / 2**20:.0f} MB, are on {preprocessor.device}.'
        )


def stack_images(dataset) -> Tensor:
    """All images of a data set by their ``sample_idx``.

    Args:
        dataset: Of mmengine's kind or a wrapper of one, images in memory.

    Returns:
        Tensor: (N, 3, H, W) uint8.

    Raises:
        ValueError: If images are not in memory, differ in size or kind, or
            have ``sample_idx`` that are no places 0 ... N - 1 or name
            different images, as those of concatenated sets do.
    """
    images = {}
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        image, index = info.get('img'), info.get('sample_idx', i)
        if image is None:
            raise ValueError(
                f'image {index} is not in memory (no img in its annotation); '
                'ImagesToDeviceHook is for sets such as CIFAR10, others use '
                'LoadTwoCrops'
            )
        known = images.setdefault(index, image)
        if known is not image and not np.array_equal(known, image):
            raise ValueError(
                f'two images have the sample_idx {index}; ImagesToDeviceHook '
                'cannot tell apart the images of concatenated data sets'
            )
    if sorted(images) != list(range(len(images))):
        raise ValueError(
            'the sample_idx of the training images are not 0 to '
            f'{len(images) - 1}; ImagesToDeviceHook needs the whole data set'
        )
    kinds = {(image.shape, image.dtype.name) for image in images.values()}
    shape, dtype = next(iter(kinds))
    if len(kinds) != 1 or len(shape) != 3 or dtype != 'uint8':
        raise ValueError(
            'ImagesToDeviceHook needs uint8 images (H, W, 3) of one size, '
            f'but there are {sorted(kinds)[:3]}'
        )
    stacked = np.stack([images[i] for i in range(len(images))])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()
