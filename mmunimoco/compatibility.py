"""Check that supported releases of mmengine, mmcv and mmpretrain exist.

OpenMMLab's own releases and their maintained continuation (``onedl-...``) have
different distribution names but the same import names, so versions are looked
up by import name. A version is read from the package's ``version.py`` without
importing the package, because importing mmpretrain with an unsupported mmcv
fails with a bare ``AssertionError``, and a missing package may be reported
from deep inside another one.
"""

import importlib
import importlib.util
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from packaging.specifiers import SpecifierSet

# Import name -> (supported releases, releases to install otherwise: of the
# continuation, of OpenMMLab). The latter are tested; the former follow from
# their requirements and change logs.
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
    """Find the version of the package that an import would load.

    Args:
        name (str): Import name of a top-level package.

    Returns:
        str | None: Its ``__version__``, None if there is no such package.
    """
    if name in sys.modules:
        return sys.modules[name].__version__
    spec = importlib.util.find_spec(name)
    # A left-over folder is found as a namespace package, without a file.
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
        # The continuation reads its own metadata, which is missing if only
        # files of an uninstalled release are left.
        return None
    return module.__version__


def check_dependencies(
    required: dict[str, tuple[str, tuple[str, str]]] = REQUIRED,
) -> None:
    """Check that a supported release of every package is installed.

    Args:
        required (dict): Import name -> (specifiers of supported releases,
            requirements to choose from otherwise).

    Raises:
        ImportError: If a package is missing or its release not supported.
            The message is one line that says what to install.
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
