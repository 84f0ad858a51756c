"""Name the field of the config in which an error arose."""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from traceback import walk_tb

from mmengine.fileio import list_from_file
from mmengine.registry import Registry

# Raised for a wrong setting, by mmengine's registries among others. Each
# takes one text, which their subclasses in other packages need not.
_KINDS = (
    *(FileNotFoundError, NotADirectoryError, IsADirectoryError),
    *(PermissionError, OSError, TypeError, ValueError),
)
_MARK = 'config_field'


@contextmanager
def part_of_config(field: str) -> Iterator[None]:
    """Note in exceptions in which field they arose, for :func:`named_field`.

    Args:
        field (str): Name of the field in its parent.
    """
    try:
        yield
    except Exception as error:
        inner = getattr(error, _MARK, None)
        setattr(error, _MARK, field if inner is None else f'{field}.{inner}')
        raise


@contextmanager
def named_field(field: str) -> Iterator[None]:
    """Prefix the message of exceptions with the field they arose in.

    Exceptions that state a wrong setting are replaced by one with a single
    line, with the original as its cause. All others, such as those for lack
    of memory, pass as they are, with the field as a note (Python 3.11).

    Args:
        field (str): The field, from the top of the config. Fields noted by
            :func:`part_of_config` are appended.

    Raises:
        OSError: In place of one (also FileNotFoundError and the like).
        TypeError: In place of one.
        ValueError: In place of a ValueError or KeyError, or if a folder has
            no images.
    """
    try:
        yield
    except Exception as error:
        inner = _noted_field(error)
        place = field if inner is None else f'{field}.{inner}'
        kind = _kind_of(error)
        if kind is None:
            if hasattr(error, 'add_note'):
                error.add_note(f'while using {place} of the config')
            raise
        text = _fault_of_list(error) or _text_of(error)
        raise kind(f'{place}: {text}') from error


def check_type(field: str, config: Mapping, registry: Registry) -> None:
    """Raise unless ``config['type']`` is registered.

    Args:
        field (str): The field of ``config``, from the top.
        config (Mapping): With ``type``; anything but a mapping is ignored.
        registry (Registry): Where the name is looked up.

    Raises:
        ValueError: If it is not registered; suggests similar names.
    """
    if not isinstance(config, Mapping):
        return
    name = config.get('type')
    if name is None:
        raise ValueError(f'{field} needs a type, but got {dict(config)}')
    if not isinstance(name, str) or registry.get(name) is not None:
        return
    known = set()
    while registry is not None:
        known |= set(registry.module_dict)
        registry = registry.parent
    raise ValueError(
        f'{field}.type={name!r} is not registered; check its spelling and '
        f'custom_imports{closest(name.rpartition(".")[2], known)}'
    )


def closest(name: str, known: Collection[str]) -> str:
    """Suggest known names that resemble an unknown one.

    Args:
        name (str): The unknown name.
        known (Collection[str]): The known ones.

    Returns:
        str: Such as ``'; did you mean a or b?'``, empty if none does.
    """
    alike = get_close_matches(name, sorted(known), 3)
    return f'; did you mean {" or ".join(alike)}?' if alike else ''


def _noted_field(error: BaseException | None) -> str | None:
    """Find the noted field here or in the exceptions that led to this one."""
    while error is not None:
        if hasattr(error, _MARK):
            return getattr(error, _MARK)
        error = error.__cause__ or error.__context__
    return None


def _fault_of_list(error: Exception) -> str | None:
    """Which line of a list of images an error is about, None if of none."""
    if not isinstance(error, ValueError):
        return None
    for frame, _ in walk_tb(error.__traceback__):
        path = getattr(frame.f_locals.get('self'), 'ann_file', None)
        if frame.f_code.co_name != 'load_data_list' or not path:
            continue
        if isinstance(error, UnicodeDecodeError):
            return f'{path} is not UTF-8 text: {error}'
        # Others may be on remote storage, of which nothing is known here.
        if not str(path).endswith('.txt') or not Path(path).is_file():
            return f'{path}: {_text_of(error)}'
        for number, line in enumerate(list_from_file(path), 1):
            name, _, label = line.strip().rpartition(' ')
            if not name or not re.fullmatch(r'-?\d+', label):
                return (
                    f'{path}, line {number}: {line!r} is not a name, a blank '
                    'and the number of a class (-1 for unlabeled)'
                )
    return None


def _kind_of(error: Exception) -> type[Exception] | None:
    """Choose the built-in type to raise, None to let the exception pass."""
    if isinstance(error, KeyError) or _is_empty_folder(error):
        return ValueError
    return next((kind for kind in _KINDS if isinstance(error, kind)), None)


def _is_empty_folder(error: Exception) -> bool:
    # mmpretrain's way to say that a folder has no images.
    return type(error) is RuntimeError and str(error).startswith('Found 0 fil')


def _text_of(error: Exception) -> str:
    """Message of an exception in one line, with what to check."""
    text = str(error)
    if isinstance(error, KeyError) and error.args:
        text = str(error.args[0])  # str(error) is in quotes
    text = ' '.join(text.split())
    folders = 'data_root, data_prefix and ann_file'
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f'there is no {str(error.filename)!r}; check {folders}'
    if _is_empty_folder(error):
        return f'{text.rstrip(".")}; check {folders}'
    return text
