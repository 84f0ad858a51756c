"""Triton's kernels, run by its interpreter and compiled for GPUs."""

import pytest
import torch
from triton_cases import compile_kernel, run_by_interpreter

from mmunimoco.models import triton_kernels

pytest.importorskip('triton', minversion='3.0')

PASS_KINDS = dict(
    query='*fp32', keys='*fp32', scalars='*fp32', vectors='*fp32',
    own_key='*fp32', values='*fp32', monitor='*fp32', means='*fp32',
    query_labels='*i64', key_labels='*i64', query_ids='*i64',
    key_ids='*i64', temperature='fp32', scale='fp32', factor='fp32',
)  # fmt: skip
SHARED = dict(POSITIVE=1, INVERSE=2, MEAN=3, VECTORS=4, BLOCK_C=128)
FLOATS = ('table', 'sums', 'sharp', 'source', 'mean', 'std')
VIEW_KINDS = dict.fromkeys(FLOATS, '*fp32') | dict(
    first='*u8', second='*u8', out='*bf16', target='*bf16'
)
CONSTANTS = dict(
    RED_IN=2, RED_OUT=0, PARTS=64, NORMALISE=True, LAST=True, BLOCK=1024
)
# Triton compiles arguments that are 1 as constants: CIFAR has one block.
SMALL = dict(blocks=1, PARTS=1)


def test_cases_by_the_interpreter():
    files = 'fused_pass_cases.py', 'fused_views_cases.py'
    assert '31 passed' in run_by_interpreter(*files)


@pytest.mark.parametrize('capability', [80, 90])
def test_pass_compiles_for_gpus(capability):
    """For shared memory of 99 KB, which all of these have."""
    from mmunimoco.models import fused_kernels

    kernels = {
        fused_kernels.pass_kernel: dict(
            SHARED, LABELED=True, IGNORE_UNLABELED=True, EXCLUDE_OWN=True,
            IN_BATCH=False, BLOCK_N=64, BLOCK_K=32, SPLIT=True,
        ),
        fused_kernels.merge_kernel: dict(SHARED, BLOCK_S=32),
    }  # fmt: skip
    for kernel, constants in kernels.items():
        compiled = compile_kernel(
            *(kernel, capability, PASS_KINDS, constants),
            num_warps=4,
            num_stages=2,
        )
        assert compiled.asm['cubin'] and compiled.metadata.shared < 99 * 1024


@pytest.mark.parametrize(('capability', 'changed'), [(80, {}), (90, SMALL)])
def test_views_compile_for_gpus(capability, changed):
    """Without float64, and rounding to bfloat16, which the cases cannot."""
    from mmunimoco.models import fused_views

    constants = CONSTANTS | changed
    for name in ('_gray_sums_kernel', '_colour_kernel', '_blur_kernel'):
        kernel = getattr(fused_views, name)
        compiled = compile_kernel(kernel, capability, VIEW_KINDS, constants)
        assert compiled.asm['cubin'], name
        assert '.f64' not in compiled.asm['ptx'], name
        rounds = 'cvt.rn.bf16' in compiled.asm['ptx']
        assert rounds == (name != '_gray_sums_kernel'), name


@pytest.mark.parametrize(
    ('option', 'device', 'capability', 'used'),
    [
        (None, 'cpu', (9, 0), False),
        (True, 'cpu', (9, 0), False),
        (None, 'cuda', (9, 0), True),
        (None, 'cuda', (7, 5), False),
        (True, 'cuda', (7, 5), True),
        (False, 'cuda', (9, 0), False),
    ],
)
def test_kernels_are_chosen_by_device(
    option, device, capability, used, monkeypatch
):
    monkeypatch.setattr(
        torch.cuda, 'get_device_capability', lambda _: capability
    )
    triton_kernels._suits.cache_clear()
    found = triton_kernels.uses_kernels(option, torch.device(device))
    triton_kernels._suits.cache_clear()
    assert found == used


def test_gpus_of_others_keep_the_plain_operations(monkeypatch):
    monkeypatch.setattr(torch.version, 'hip', '6.0')
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda _: (9, 4))
    triton_kernels._suits.cache_clear()
    found = triton_kernels.uses_kernels(None, torch.device('cuda'))
    triton_kernels._suits.cache_clear()
    assert found is False
