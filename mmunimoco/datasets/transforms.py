"""Small pipeline transforms."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS


@TRANSFORMS.register_module()
class IndexAsImage(BaseTransform):
    """Return the sample index instead of the image.

    For datasets whose images are kept on the device (``StepOptionsHook`` with
    ``images_on_device=True``); :class:`TwoViewAugment` looks the images up and
    crops them there.

    Required keys: ``sample_idx``. Modified keys: ``img``, an int64 tensor of
    shape (), which ``PackInputs`` accepts.
    """

    def transform(self, results: dict) -> dict:
        """Replace ``img`` with the index of the sample."""
        results['img'] = torch.tensor(results['sample_idx'])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class TrainIgnoredObjects(BaseTransform):
    """Train a detector on the objects that are marked as ignored.

    In VOC these are the "difficult" ones. mmdet excludes them, so predictions
    on them count as background; detectron2, which produced the published
    results, trains on them. Place it after mmdet's ``LoadAnnotations``, as
    ``type='mmpretrain.TrainIgnoredObjects'``.

    Modified keys: ``gt_ignore_flags``, (N,) bool, all False.
    """

    def transform(self, results: dict) -> dict:
        """Clear ``gt_ignore_flags``."""
        flags = results['gt_ignore_flags']
        results['gt_ignore_flags'] = np.zeros_like(flags)
        return results
