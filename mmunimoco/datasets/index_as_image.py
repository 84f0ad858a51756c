"""The place of an image in place of the image."""

import torch
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS


@TRANSFORMS.register_module()
class IndexAsImage(BaseTransform):
    """Hand on where an image stands in its data set, not the image.

    For data sets of which ``StepOptionsHook`` puts the images on
    the device; :class:`TwoViewAugment` crops them there.

    Required keys: ``sample_idx``. Modified keys: ``img``, an int64 tensor
    of no dimensions, which ``PackInputs`` takes.
    """

    def transform(self, results: dict) -> dict:
        """Replace the image.

        Args:
            results (dict): A sample of a data set of mmengine's kind.

        Returns:
            dict: The same with the index.
        """
        results['img'] = torch.tensor(results['sample_idx'])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
