"""Supervised contrast within a batch, a reference without queue.

SupCon as published (Khosla et al., arXiv 2004.11362): each of the two views of
an image is contrasted with all other views of the batch.
"""

import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.nn import functional

from mmunimoco.models import UniMoCo


@MODELS.register_module()
class InBatchSupCon(UniMoCo):
    """The query encoder alone; queue and key encoder stay as they are."""

    def loss(
        self, inputs: list[Tensor], data_samples: list[DataSample]
    ) -> dict[str, Tensor]:
        """Compute the loss of 2N views of N labeled images."""
        labels = self.head.collect(data_samples).labels.repeat(2)
        features = self.neck(self.backbone(torch.cat(inputs)))[0]
        features = functional.normalize(features, dim=1)
        scores = features @ features.T / self.head.temperature
        itself = torch.eye(len(labels), dtype=torch.bool)
        positives = (labels[:, None] == labels) & ~itself
        scores = scores.masked_fill(itself, float('-inf'))
        return dict(loss=self.head.loss_module(scores, positives))
