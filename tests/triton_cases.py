"""Run cases by Triton's interpreter, and compile kernels for GPUs."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def nan_where_nothing_was_stored():
    """Torch fills new memory with NaN, so reading it by mistake shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def run_by_interpreter(*names: str) -> str:
    """Run files of cases in a process of their own; its output.

    Triton decides when it is imported whether it interprets.
    """
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider']
    done = subprocess.run(
        [*command, *(TESTS / name for name in names)],
        env=dict(os.environ, TRITON_INTERPRET='1'),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def compile_kernel(
    kernel: Any, capability: int, kinds: dict, constants: dict, **options: int
) -> Any:
    """Compile a kernel for a GPU that need not be there.

    Args:
        kernel: The kernel.
        capability (int): Such as 90 for an H100.
        kinds (dict): Type of an argument, 32-bit integers for all others.
        constants (dict): Values of constant arguments; those that the kernel
            does not have are left aside.
        **options: Of ``triton.compile``, such as ``num_warps``.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    source = ASTSource(
        fn=kernel,
        signature={
            name: 'constexpr' if name in constants else kinds.get(name, 'i32')
            for name in names
        },
        constexprs={
            (names.index(name),): value
            for name, value in constants.items()
            if name in names
        },
    )
    target = GPUTarget('cuda', capability, 32)
    return triton.compile(source, target=target, options=options or None)
