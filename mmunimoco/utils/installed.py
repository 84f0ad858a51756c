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


def find_weights(name: str) -> Path:
    """Return the file of a model that comes with this project.

    Args:
        name (str): Name of its config, as in the metafiles.

    Returns:
        Path: A ``.safetensors`` file with the backbone, in half precision.

    Raises:
        ValueError: If there is no such model.
    """
    files = sorted(configs_dir().glob('**/weights/*.safetensors'))
    # The name of a file ends with a part of its MD5.
    known = {path.stem.rpartition('-')[0]: path for path in files}
    if name not in known:
        raise ValueError(
            f'mmunimoco has no weights of {name!r}, only of {", ".join(known)}'
        )
    return known[name]
