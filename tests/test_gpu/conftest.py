"""The same tests on the CPU, to try the tests, and on a GPU."""

import contextlib

import pytest
import torch
from mmengine.utils import digit_version


@pytest.fixture(
    params=['cpu', pytest.param('cuda', marks=pytest.mark.gpu)],
)
def device(request):
    """Where the code under test runs; the reference stays on the CPU."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def seed():
    """The same random numbers whichever tests run, drawn on the CPU."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def full_float32(monkeypatch):
    """No TF32, to which cuDNN rounds float32 by default (11 bits)."""
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


def skip_float16_of_old_torch(device, dtype):
    """Before torch 2.3 a CPU has next to no float16."""
    old = digit_version(torch.__version__) < digit_version('2.3.0')
    if old and device.type == 'cpu' and dtype == torch.float16:
        pytest.skip('this torch has no float16 on a CPU')


@pytest.fixture
def half_device(device, dtype):
    """The device, where it has the dtype."""
    skip_float16_of_old_torch(device, dtype)
    return device


@pytest.fixture
def autocast(device):
    """Call with a dtype: autocast to it, or nothing for full precision."""

    def enter(dtype):
        if dtype not in (torch.float16, torch.bfloat16):
            return contextlib.nullcontext()
        skip_float16_of_old_torch(device, dtype)
        return torch.autocast(device.type, dtype=dtype)

    return enter
