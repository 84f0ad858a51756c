"""Fixtures and order of all tests.

mmengine and torch are imported in functions: the process that only distributes
tests among others (pytest-xdist) then starts without them.
"""

import errno
import gc
import importlib.metadata
import logging
import os
import signal
from functools import cache
from pathlib import Path

import pytest

try:
    from hypothesis import settings
except ImportError:  # not needed by the tests for GPUs
    pass
else:
    # The same examples in every run.
    settings.register_profile(
        'repeatable', deadline=None, derandomize=True, database=None
    )
    settings.load_profile('repeatable')


# The longest files by CPU time, some of 15 s and more. One that starts last
# would leave the other processes idle.
LONGEST = (
    'test_engine/test_exact/test_resume.py',
    'test_study/test_run.py',
    'test_demo/test_run.py',
    'test_engine/test_exact/test_dying_ranks.py',
    'test_benchmarks/test_speed.py',
    'test_benchmarks/test_soak.py',
    'test_docs/test_site.py',
    'test_models/test_triton_kernels.py',
    'test_configs/test_own_data_transfer.py',
    'test_tools/test_transfer_scripts.py',
    'test_configs/test_mmpretrain_train.py',
    'test_configs/test_documented_snippets.py',
    'test_docs/test_notebook.py',
    'test_packaging/test_mim.py',
    'test_models/test_unimoco_ranks.py',
    'test_converters/test_from_mmunimoco.py',
    'test_configs/test_mmdetection_runs.py',
    'test_models/test_batch_shuffle.py',
)


@pytest.fixture(scope='module', autouse=True)
def mmpretrain_scope():
    """Reset the default scope, which the last Runner may have changed."""
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(scope='session', autouse=True)
def quick_runners():
    """Skip what takes a runner of mmengine longer than the steps of a test.

    It parses all metafiles of a package for each config inherited from it,
    looks for compilers, and formats the config; processes that are started do
    not format it either.
    """
    from mmengine.config import utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, 'load', cache(utils.load))
        patch.setattr('mmengine.runner.runner.collect_env', dict)
        folder = str(Path(__file__).parent / 'quick_start')
        patch.setenv('PYTHONPATH', folder, prepend=os.pathsep)
        yield


@pytest.fixture(autouse=True)
def no_earlier_run():
    """Forget earlier runs: mmengine names runs by the second they start."""
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.visualization import Visualizer

    for kept in (MessageHub, MMLogger, Visualizer):
        kept._instance_dict.clear()


@pytest.fixture(autouse=True)
def settings_of_the_process():
    """Undo what a run in this process may leave, above all if it fails."""
    import torch

    yield
    torch.use_deterministic_algorithms(False)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture
def log(caplog):
    """Messages of mmengine's current logger."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture
def full_disk(monkeypatch):
    """Let files fail that are written atomically."""
    from mmunimoco.utils import atomic

    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, 'fsync', fail)


def pytest_collection_modifyitems(items):
    """Run the longest files first; skip GPU tests without a GPU."""
    import torch

    order = {Path(__file__).parent / name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason='needs a CUDA device')
    for item in items:
        if 'gpu' in item.keywords:
            item.add_marker(skip)


def pytest_collection_finish():
    """Exempt what is imported from garbage collection.

    mmengine collects garbage for every dataset it builds, which takes 0.4 s
    with all these modules in memory.
    """
    gc.collect()
    gc.freeze()


RELEASES = (
    *('torch', 'torchvision', 'numpy', 'onedl-mmengine', 'mmengine'),
    *('onedl-mmcv', 'mmcv', 'mmcv-lite', 'onedl-mmpretrain', 'mmpretrain'),
    *('onedl-mmdetection', 'mmdet', 'onedl-mmsegmentation', 'mmsegmentation'),
)


def pytest_report_header():
    """Show the releases of the stack."""
    found = []
    for name in RELEASES:
        try:
            found.append(f'{name} {importlib.metadata.version(name)}')
        except importlib.metadata.PackageNotFoundError:
            continue
    return f'stack: {", ".join(found)}'
