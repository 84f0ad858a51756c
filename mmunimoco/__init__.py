"""UniMoCo (arXiv 2103.10773) as a plugin for mmpretrain."""

from .compatibility import check_dependencies
from .version import __version__

# Before anything below imports mmengine, mmcv or mmpretrain: their own errors
# say less about what to do.
check_dependencies()

from . import datasets, engine, evaluation, models  # noqa: E402
from .renamed import register_renamed  # noqa: E402

register_renamed()

__all__ = ['__version__', 'datasets', 'engine', 'evaluation', 'models']
