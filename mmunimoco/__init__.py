"""UniMoCo (arXiv 2103.10773) as a plugin for mmpretrain."""

import warnings

from .compatibility import check_dependencies
from .version import __version__

# Before the imports below, because the errors of mmengine, mmcv and mmpretrain
# do not say what to install.
check_dependencies()

with warnings.catch_warnings():
    # mmcv-lite advises to install mmcv, which only transfer needs.
    warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformable')
    from . import datasets, engine, evaluation, models

from .utils.installed import configs_dir  # noqa: E402

__all__ = [
    '__version__',
    'configs_dir',
    'datasets',
    'engine',
    'evaluation',
    'models',
]
