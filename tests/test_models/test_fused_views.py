"""Fused augmentation by Triton's interpreter, and compiled for GPUs."""

import pytest
from triton_cases import compile_kernel, run_by_interpreter

pytest.importorskip('triton', minversion='3.0')

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
    assert '12 passed' in run_by_interpreter('fused_views_cases.py')


@pytest.mark.slow
@pytest.mark.parametrize(('capability', 'changed'), [(80, {}), (90, SMALL)])
def test_kernels_compile_for_gpus(capability, changed):
    """Without float64, and rounding to bfloat16, which the cases cannot."""
    from mmunimoco.models import fused_views

    constants = CONSTANTS | changed
    for name in ('_gray_sums_kernel', '_colour_kernel', '_blur_kernel'):
        kernel = getattr(fused_views, name)
        compiled = compile_kernel(kernel, capability, KINDS, constants)
        assert compiled.asm['cubin'], name
        assert '.f64' not in compiled.asm['ptx'], name
        rounds = 'cvt.rn.bf16' in compiled.asm['ptx']
        assert rounds == (name != '_gray_sums_kernel'), name
