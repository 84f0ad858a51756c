"""The fused pass, run by Triton's interpreter and compiled for GPUs."""

import pytest
from triton_cases import compile_kernel, run_by_interpreter

pytest.importorskip('triton', minversion='3.0')

KINDS = dict(
    query='*fp32', keys='*fp32', scalars='*fp32', vectors='*fp32',
    own_key='*fp32', results='*fp32', means='*fp32',
    query_labels='*i64', key_labels='*i64', query_ids='*i64', key_ids='*i64',
    inverse_temperature='fp32', temperature='fp32', factor='fp32',
)  # fmt: skip
SHARED = dict(POSITIVE=1, INVERSE=2, MEAN=3, VECTORS=4, BLOCK_C=128)


def test_cases_by_the_interpreter():
    assert '11 passed' in run_by_interpreter('fused_pass_cases.py')


@pytest.mark.slow
@pytest.mark.parametrize('capability', [80, 90])
def test_kernels_compile_for_gpus(capability):
    """For shared memory of 99 KB, which all of these have."""
    from mmunimoco.models import fused_kernels

    kernels = {
        fused_kernels.pass_kernel: dict(
            SHARED, LABELED=True, IGNORE_UNLABELED=True, EXCLUDE_OWN=True,
            IN_BATCH=False, BLOCK_N=32, BLOCK_K=32, PRECISION='tf32x3',
        ),
        fused_kernels.merge_kernel: dict(SHARED, BLOCK_S=32),
    }  # fmt: skip
    for kernel, constants in kernels.items():
        compiled = compile_kernel(
            *(kernel, capability, KINDS, constants), num_warps=8, num_stages=2
        )
        assert compiled.asm['cubin'] and compiled.metadata.shared < 99 * 1024
