"""Metadata of mmunimoco, and the ``.mim`` folder that OpenMMLab's tools read.

``mmunimoco/.mim`` makes configs, tools and model-index.yml available from an
installed package. Wheels and source archives contain copies; an editable
install links to the repository, so edited configs take effect.
"""

import os
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.develop import develop
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
PACKAGE = 'mmunimoco'
MIM_SOURCES = ('configs', 'tools', 'model-index.yml')


def read_version():
    """Read the version without importing the package's dependencies."""
    scope = {}
    exec((ROOT / PACKAGE / 'version.py').read_text(), scope)
    return scope['__version__']


def read_requirements(*names):
    """Read requirement files, without comments."""
    lines = []
    for name in names:
        text = (ROOT / 'requirements' / f'{name}.txt').read_text()
        stripped = (line.split('#')[0].strip() for line in text.splitlines())
        lines += [line for line in stripped if line]
    return lines


def remove(path):
    """Remove a file, a link or a folder if it is there."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


def copy_mim(package_dir):
    """Create ``.mim`` with copies in a built package."""
    target = Path(package_dir, '.mim')
    remove(target)
    target.mkdir(parents=True)
    ignore = shutil.ignore_patterns('__pycache__', '*.py[cod]')
    for name in MIM_SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=ignore)
        else:
            shutil.copy2(ROOT / name, target / name)


def link_mim():
    """Create ``.mim`` with links, or copies where links are not allowed."""
    target = ROOT / PACKAGE / '.mim'
    remove(target)
    target.mkdir()
    try:
        for name in MIM_SOURCES:
            # Relative: the repository may be moved.
            os.symlink(Path('..', '..', name), target / name)
    except OSError:
        copy_mim(ROOT / PACKAGE)


class BuildPy(build_py):
    """Add ``.mim`` to wheels and, in editable mode, to the source tree."""

    def run(self):
        super().run()
        if getattr(self, 'editable_mode', False):
            link_mim()
        else:
            copy_mim(Path(self.build_lib, PACKAGE))


class Develop(develop):
    """Add ``.mim`` to editable installs without PEP 660."""

    def run(self):
        link_mim()
        super().run()


class SDist(sdist):
    """Add ``.mim`` to source archives."""

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        copy_mim(Path(base_dir, PACKAGE))


# mmengine, mmcv and mmpretrain are not required: OpenMMLab's releases and the
# onedl packages share import names, and installing one would overwrite the
# files of the other. Importing mmunimoco checks the versions instead
# (mmunimoco/compatibility.py).
setup(
    name=PACKAGE,
    version=read_version(),
    description='UniMoCo: unsupervised, semi-supervised and fully supervised '
    'visual representation learning, as a plugin for mmpretrain',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The mmunimoco contributors',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords='contrastive learning, self-supervised learning, '
    'semi-supervised learning, representation learning, OpenMMLab',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    # For editable installs: makes setuptools put the repository on sys.path.
    # Its default, an import hook behind sys.path, finds nothing where the
    # current folder contains a clone named mmunimoco: the clone would be
    # imported, as a namespace package without content.
    package_dir={'': '.'},
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    include_package_data=False,
    python_requires='>=3.10',
    install_requires=read_requirements('runtime'),
    extras_require={
        'transfer': read_requirements('transfer'),
        'tests': read_requirements('tests'),
        'dev': read_requirements('tests', 'lint'),
        'all': read_requirements('transfer', 'tests', 'lint'),
    },
    # Not an entry point: that would load torch before the script sets what
    # torch reads when it is loaded.
    scripts=['tools/mmunimoco'],
    cmdclass={'build_py': BuildPy, 'develop': Develop, 'sdist': SDist},
    zip_safe=False,
)
