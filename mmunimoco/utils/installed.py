"""Where files of an installed mmunimoco are."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def configs_dir() -> Path:
    """Return the folder of this project's configs.

    Returns:
        Path: Of the installed package, or of the repository.

    Raises:
        FileNotFoundError: If the package was installed without its configs.
    """
    installed = _PACKAGE / '.mim/configs'
    for folder in (installed, _PACKAGE.parent / 'configs'):
        if (folder / '_base_').is_dir():
            return folder.resolve()
    raise FileNotFoundError(
        f'mmunimoco was installed without its configs ({installed} is '
        'missing): install it by pip from its wheel or its repository'
    )
