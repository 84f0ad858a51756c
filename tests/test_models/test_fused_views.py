"""Fused augmentation by Triton's interpreter, and compiled for GPUs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip('triton', minversion='3.0')

TESTS = Path(__file__).parents[1]
FLOATS = ('table', 'sums', 'sharp', 'source', 'mean', 'std')
KINDS = dict.fromkeys(FLOATS, '*fp32') | dict(
    first='*u8', second='*u8', out='*bf16', target='*bf16'
)
CONSTANTS = dict(
    RED_IN=2, RED_OUT=0, PARTS=64, NORMALISE=True, LAST=True, BLOCK=1024
)
# Triton compiles arguments that are 1 as constants: CIFAR has one block.
SMALL = dict(blocks=1, PARTS=1)


@pytest.mark.slow
def test_cases_by_the_interpreter():
    """In a process of its own: Triton decides when it is imported."""
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider']
    done = subprocess.run(
        [*command, TESTS / 'fused_views_cases.py'],
        env=dict(os.environ, TRITON_INTERPRET='1'),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert '12 passed' in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(('capability', 'changed'), [(80, {}), (90, SMALL)])
def test_kernels_compile_for_gpus(capability, changed):
    """Without float64, and rounding to bfloat16, which the cases cannot."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mmunimoco.models import fused_views

    constants = CONSTANTS | changed
    for name in ('_gray_sums_kernel', '_colour_kernel', '_blur_kernel'):
        kernel = getattr(fused_views, name)
        names = kernel.arg_names
        source = ASTSource(
            fn=kernel,
            signature={
                name: 'constexpr'
                if name in constants
                else KINDS.get(name, 'i32')
                for name in names
            },
            constexprs={
                (names.index(name),): value
                for name, value in constants.items()
                if name in names
            },
        )
        target = GPUTarget('cuda', capability, 32)
        compiled = triton.compile(source, target=target)
        assert compiled.asm['cubin'], name
        assert '.f64' not in compiled.asm['ptx'], name
        rounds = 'cvt.rn.bf16' in compiled.asm['ptx']
        assert rounds == (name != '_gray_sums_kernel'), name
