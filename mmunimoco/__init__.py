"""UniMoCo (arXiv 2103.10773) as a plugin for mmpretrain."""

from .compatibility import check_dependencies
from .version import __version__

# Before the imports below, because the errors of mmengine, mmcv and mmpretrain
# do not say what to install.
check_dependencies()

from . import datasets, engine, evaluation, models  # noqa: E402
from .renamed import register_renamed  # noqa: E402
from .utils.installed import configs_dir  # noqa: E402

register_renamed()

__all__ = [
    '__version__',
    'configs_dir',
    'datasets',
    'engine',
    'evaluation',
    'models',
]
