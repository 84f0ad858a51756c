"""Say of which field of the config an error is."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches

from mmengine.registry import Registry

# What parts raise whose settings are wrong, mmengine's registries included.
_ERRORS = (KeyError, OSError, RuntimeError, TypeError, ValueError)
_MARK = 'config_field'


@contextmanager
def part_of_config(field: str) -> Iterator[None]:
    """Note on errors in which field they arose; they pass as they are.

    Args:
        field (str): As its parent in the config names it.
    """
    try:
        yield
    except _ERRORS as error:
        inner = getattr(error, _MARK, None)
        setattr(error, _MARK, field if inner is None else f'{field}.{inner}')
        raise


@contextmanager
def named_field(field: str) -> Iterator[None]:
    """Begin the message of errors with their field, in one line.

    Args:
        field (str): From the top of the config. What
            :func:`part_of_config` noted on the way is added.

    Raises:
        OSError: In place of one, of the same type.
        TypeError: In place of one.
        ValueError: In place of all other errors.
    """
    try:
        yield
    except _ERRORS as error:
        inner = _mark_of(error)
        place = field if inner is None else f'{field}.{inner}'
        kind = ValueError
        if isinstance(error, (OSError, TypeError)):
            kind = type(error)
        raise kind(f'{place}: {_text_of(error)}') from error


def check_type(field: str, config: Mapping, registry: Registry) -> None:
    """Refuse a ``type`` that nobody registered.

    Args:
        field (str): The field of ``config``, from the top.
        config (Mapping): With ``type``; what is no mapping is left alone.
        registry (Registry): Where the name is looked up.

    Raises:
        ValueError: If it is not there; names what is spelt alike.
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
    alike = get_close_matches(name.rpartition('.')[2], sorted(known), 3)
    hint = f'; did you mean {" or ".join(alike)}?' if alike else ''
    raise ValueError(
        f'{field}.type={name!r} is not registered; check its spelling and '
        f'custom_imports{hint}'
    )


def _mark_of(error: BaseException | None) -> str | None:
    """The noted field; builders may have raised an error anew."""
    while error is not None:
        if hasattr(error, _MARK):
            return getattr(error, _MARK)
        error = error.__cause__ or error.__context__
    return None


def _text_of(error: BaseException) -> str:
    """What an error says, in one line, with what to look at."""
    text = ' '.join(str(error).split())
    if isinstance(error, KeyError) and error.args:
        text = ' '.join(str(error.args[0]).split())
    folders = 'data_root, data_prefix and ann_file'
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f'there is no {str(error.filename)!r}; check {folders}'
    # mmpretrain's words for a folder without images.
    if isinstance(error, RuntimeError) and text.startswith('Found 0 files'):
        return f'{text.rstrip(".")}; check {folders}'
    return text
