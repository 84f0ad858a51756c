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


@pytest.fixture
def autocast(device):
    """Call with a dtype: autocast to it, or nothing for full precision."""

    def enter(dtype):
        # torch 2.1 has bfloat16 alone on the CPU.
        half = dtype == torch.bfloat16 or (
            dtype == torch.float16 and device.type == 'cuda'
        )
        if not half:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=dtype)

    return enter
