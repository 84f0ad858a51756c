"""The same tests on the CPU, to try the tests, and on a GPU."""

import contextlib

import pytest
import torch


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


@pytest.fixture
def autocast(device):
    """Call with a dtype: autocast to it, or nothing for full precision."""

    def enter(dtype):
        if dtype not in (torch.float16, torch.bfloat16):
            return contextlib.nullcontext()
        # torch 2.1 warns and does nothing for float16 on the CPU.
        return torch.autocast(device.type, dtype=dtype)

    return enter
