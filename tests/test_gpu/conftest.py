"""The same test bodies on the CPU, to try the tests, and on a GPU."""

import contextlib

import pytest
import torch
from mmengine.utils import digit_version


@pytest.fixture(
    params=['cpu', pytest.param('cuda', marks=pytest.mark.gpu)],
)
def device(request):
    """Where the code under test runs; references stay on the CPU."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def seed():
    """The same random numbers, drawn on the CPU, in any selection of tests."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def full_float32(monkeypatch):
    """Disable TF32, to which cuDNN rounds float32 by default (11 bits)."""
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


@pytest.fixture
def autocast(device):
    """Return a function: dtype -> autocast to it; float32 -> no autocast."""

    def enter(dtype):
        if dtype == torch.float32:
            return contextlib.nullcontext()
        old = digit_version(torch.__version__) < digit_version('2.3.0')
        if old and device.type == 'cpu' and dtype == torch.float16:
            pytest.skip('torch before 2.3 has no float16 on a CPU')
        return torch.autocast(device.type, dtype=dtype)

    return enter
