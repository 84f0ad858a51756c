"""Sphinx configuration of the documentation.

    sphinx-build -W --keep-going docs work_dirs/docs

The pages of this folder, of the configs and of the changelog are read where
they are. Pages that follow from files (configs, models, API) are written to
``docs/_generated`` first; see ``sphinx_pages``.
"""

import io
import sys
from contextlib import redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'docs')]

with redirect_stdout(io.StringIO()):
    from mmunimoco import __version__
from sphinx_pages.links import rewrite  # noqa: E402
from sphinx_pages.pages import write_pages  # noqa: E402

project, author = 'mmunimoco', 'The mmunimoco contributors'
copyright = author
version = release = __version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
]
source_suffix = {'.md': 'markdown'}
exclude_patterns = ['_build', 'sphinx_pages']
myst_enable_extensions = ['colon_fence', 'dollarmath']
myst_heading_anchors = 4
# Code fences of mmengine's configs have {{_base_...}}, which is no Python.
suppress_warnings = ['misc.highlighting_failure']

autodoc_member_order = 'bysource'
autodoc_typehints = 'none'  # types stand in the docstrings
autodoc_default_options = {'members': True, 'show-inheritance': True}
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True

html_theme = 'furo'
html_title = f'mmunimoco {version}'
html_static_path = []
html_copy_source = False


def setup(app) -> None:
    """Write generated pages first, and fit links when pages are read."""
    app.connect('config-inited', lambda *_: write_pages(ROOT))
    app.connect('source-read', lambda *args: _fit_links(*args))


def _fit_links(app, name: str, source: list[str]) -> None:
    source[0] = rewrite(source[0], name, ROOT)
