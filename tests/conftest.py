"""What all tests share."""

import gc
import importlib.metadata
from functools import cache

import mmengine.config.config
import pytest
import torch
from mmengine.config import utils as config_utils
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from yapf.yapflib import yapf_api

try:
    from hypothesis import settings
except ImportError:  # the tests of GPUs do without
    pass
else:
    # The same examples in every run, and none remembered between runs.
    settings.register_profile(
        'repeatable', deadline=None, derandomize=True, database=None
    )
    settings.load_profile('repeatable')


@pytest.fixture(scope='module', autouse=True)
def scope_of_mmpretrain():
    """The last Runner of the process before may have left mmdet's."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(scope='session', autouse=True)
def quick_runners():
    """Skip what takes a runner of mmengine longer than the steps of a test.

    These are parsing all metafiles of a host for each base config (cached),
    formatting configs by yapf, and looking for compilers.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_utils, 'load', cache(config_utils.load))
        for module in (mmengine.config.config, yapf_api):
            patch.setattr(
                module,
                'FormatCode',
                lambda text, **_: (text, True),
                raising=False,
            )
        patch.setattr('mmengine.runner.runner.collect_env', dict)
        yield


@pytest.fixture(autouse=True)
def no_earlier_run():
    """Runs of one name within a second would share what mmengine keeps."""
    for kept in (MessageHub, MMLogger, Visualizer):
        kept._instance_dict.clear()


def pytest_collection_modifyitems(items):
    """Begin with the longest; skip what needs a GPU where there is none."""
    # Files with long tests at the end would leave all but one process idle.
    slow = {item.path for item in items if 'slow' in item.keywords}
    items.sort(key=lambda item: item.path not in slow)
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


# Of what decides whether a test passes, by the names of the distributions.
RELEASES = (
    *('torch', 'torchvision', 'numpy', 'onedl-mmengine', 'mmengine'),
    *('onedl-mmcv', 'mmcv', 'mmcv-lite', 'onedl-mmpretrain', 'mmpretrain'),
    *('onedl-mmdetection', 'mmdet', 'onedl-mmsegmentation', 'mmsegmentation'),
)


def pytest_report_header():
    """Name the stack that a run is about."""
    found = []
    for name in RELEASES:
        try:
            found.append(f'{name} {importlib.metadata.version(name)}')
        except importlib.metadata.PackageNotFoundError:
            continue
    return f'stack: {", ".join(found)}'
