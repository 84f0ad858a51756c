"""Are mmengine, mmcv and mmpretrain there, in releases that work?

OpenMMLab's own releases and their maintained continuation (``onedl-…``) have
different distribution names and the same import names, so versions are looked
up by import name. A version is read from the package's ``version.py`` without
importing the package: mmpretrain's own import fails with a bare
``AssertionError`` when it does not like mmcv, and a missing package may be
reported from deep inside another one.
"""

import importlib
import importlib.util
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from packaging.specifiers import SpecifierSet

# Import name -> (releases that work, releases to install otherwise: of the
# continuation, of OpenMMLab). The latter were tried; the former are what their
# own requirements and change logs allow around them.
REQUIRED = {
    'mmengine': (
        '>=0.10.4,<1.0',
        ('onedl-mmengine==0.10.12', 'mmengine==0.10.7'),
    ),
    'mmcv': ('>=2.1.0,<2.4', ('onedl-mmcv==2.3.6', 'mmcv==2.1.0')),
    'mmpretrain': (
        '>=1.2.0,<2.0',
        ('onedl-mmpretrain==1.3.6', 'mmpretrain==1.2.0'),
    ),
}


def find_version(name: str) -> str | None:
    """Find the version of the package that an import would give.

    Args:
        name: Import name of a top-level package.

    Returns:
        Its ``__version__``, or None when there is no such package.
    """
    if name in sys.modules:
        return sys.modules[name].__version__
    spec = importlib.util.find_spec(name)
    # A left-over folder is found too, as a namespace package without a file.
    if spec is None or spec.origin is None:
        return None
    version_file = Path(spec.origin).with_name('version.py')
    if not version_file.is_file():
        return importlib.import_module(name).__version__
    return _run_version_file(name, version_file)


def _run_version_file(name: str, path: Path) -> str | None:
    spec = importlib.util.spec_from_file_location(f'_{name}_version', path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except PackageNotFoundError:
        # The continuation asks for its own metadata, which is gone when only
        # files of an uninstalled release are left.
        return None
    return module.__version__


def check_dependencies(
    required: dict[str, tuple[str, tuple[str, str]]] = REQUIRED,
):
    """Check that every package is there in a release that works.

    Args:
        required: Import name -> (specifiers of releases that work,
            requirements to choose from otherwise).

    Raises:
        ImportError: A package is missing or out of range. The message is one
            line that says what to install.
    """
    for name, (allowed, remedies) in required.items():
        found = find_version(name)
        if found is None:
            state = 'is not installed'
        elif SpecifierSet(allowed).contains(found, prereleases=True):
            continue
        else:
            state = f'{found} is installed'
        raise ImportError(
            f'mmunimoco needs {name} {allowed}, but {name} {state}: run '
            f'`bash tools/install.sh`, or install {" or ".join(remedies)}',
            name=name,
        )
