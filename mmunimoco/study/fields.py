"""Kinds of values in a study file."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
        text: What it is, after 'must be'.
        fits: Whether a value is of this kind.
    """

    text: str
    fits: Callable[[Any], bool]


def check_entry(
    place: str,
    entry: Any,
    kinds: Mapping[str, Kind],
    needed: tuple[str, ...] = (),
) -> None:
    """Check the fields of an entry of a study file.

    Args:
        place (str): The file and the entry, for the message.
        entry (Any): The entry.
        kinds (Mapping[str, Kind]): All fields that it may have.
        needed (tuple[str, ...]): Those that it must have. Defaults to none.

    Raises:
        ValueError: If it is no dict, or a field is missing, unknown or not
            of its kind.
    """
    if not isinstance(entry, Mapping):
        raise ValueError(f'{place} must be a dict, got {entry!r}')
    missing = [key for key in needed if key not in entry]
    if missing:
        raise ValueError(f'{place} lacks {", ".join(missing)}')
    unknown = [str(key) for key in entry if key not in kinds]
    if unknown:
        raise ValueError(
            f'{place} does not take {", ".join(sorted(unknown))}, but '
            f'{", ".join(kinds)}'
        )
    for key, value in entry.items():
        if not kinds[key].fits(value):
            raise ValueError(
                f'{place}.{key} must be {kinds[key].text}, got {value!r}'
            )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ''


def _is_list(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and all(map(of, value))


TEXT = Kind('a text', _is_text)
COMMAND = Kind(
    'a list of texts',
    lambda x: _is_list(x, lambda word: isinstance(word, str)) and len(x) > 0,
)
NAMES = Kind('a list of names', lambda x: _is_list(x, _is_text))
NAME_OR_NAMES = Kind(
    'a name or a list of names',
    lambda x: _is_text(x) or (_is_list(x, _is_text) and len(x) > 0),
)
FLAG = Kind('True or False', lambda x: isinstance(x, bool))
NUMBER = Kind('a number', _is_number)
POSITIVE = Kind('a number above 0', lambda x: _is_number(x) and x > 0)
NOT_NEGATIVE = Kind('a number from 0 on', lambda x: _is_number(x) and x >= 0)
COUNT = Kind('an integer from 1 on', _is_count)
COUNTS = Kind(
    'an integer from 1 on, or a list of them',
    lambda x: _is_count(x) or (_is_list(x, _is_count) and len(x) > 0),
)
INDEX = Kind('an integer from 0 on', lambda x: type(x) is int and x >= 0)
OVERRIDES = Kind(
    'a dict of dotted fields',
    lambda x: isinstance(x, Mapping) and all(map(_is_text, x)),
)
