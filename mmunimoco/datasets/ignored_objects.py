"""Objects that a data set marks as difficult, trained like the others."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS


@TRANSFORMS.register_module()
class TrainIgnoredObjects(BaseTransform):
    """Let a detector train on objects that are marked to be ignored.

    In mmdet these are the difficult ones of VOC. It sets them apart, and what
    lies on them then counts as background; detectron2, with which published
    results were made, trains on them. Comes after mmdet's
    ``LoadAnnotations``, as ``type='mmpretrain.TrainIgnoredObjects'``.

    Modified Keys:

    - gt_ignore_flags (np.ndarray, bool, (N,)): all False.
    """

    def transform(self, results: dict) -> dict:
        """Clear the marks.

        Args:
            results (dict): What the pipeline knows of an image.

        Returns:
            dict: The same, with ``gt_ignore_flags`` replaced.
        """
        flags = results['gt_ignore_flags']
        results['gt_ignore_flags'] = np.zeros_like(flags)
        return results
