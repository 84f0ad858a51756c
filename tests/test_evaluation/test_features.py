"""Features of a batch, as kNN and the linear probe see them."""

import pytest
import torch
from mmpretrain.structures import DataSample
from torch import nn

from mmunimoco.evaluation.features import extract_batch, pool


def test_the_last_stage_is_pooled_in_single_precision():
    early, late = torch.rand(2, 3, 8, 8), torch.rand(2, 6, 4, 4)
    torch.testing.assert_close(pool((early, late)), late.mean((2, 3)))
    assert torch.equal(pool((early, late[:, :, 0, 0])), late[:, :, 0, 0])
    # Half precision does not hold this mean, nor the sum.
    large = torch.tensor([2000.0, 2001.0]).half().expand(1, 1, 32, 2)
    assert pool(large).tolist() == [[2000.5]]


class _Model(nn.Module):
    """Its features are the products with the same weights."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(3, 2)
        self.backbone.register_forward_hook(self.note)

    def data_preprocessor(self, data, training):
        return data

    def note(self, module, inputs, outputs):
        self.dtype = outputs.dtype


@pytest.mark.parametrize('fp16', [False, True])
def test_half_precision_is_used_if_asked_for(fp16):
    model, samples = _Model(), [DataSample(), DataSample()]
    batch = dict(inputs=torch.rand(2, 3), data_samples=samples)
    features, found = extract_batch(model, batch, fp16)
    assert (model.dtype != torch.float32) == fp16
    assert features.dtype == torch.float32 and found == samples
