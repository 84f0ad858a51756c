"""Renaming the keys of a state dict, with nothing dropped in silence."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from mmunimoco.utils.checkpoint import describe_prefixes, shorten

# Regular expression of a key, and what it becomes; None drops it.
Rule = tuple[str, str | None]


def rename_keys(
    state: Mapping[str, Tensor], rules: Sequence[Rule], what: str
) -> dict[str, Tensor]:
    """Rename every key by the first rule that matches it as a whole.

    Args:
        state (Mapping[str, Tensor]): Weights by key.
        rules (Sequence[Rule]): Pattern and replacement, as for ``re.sub``.
        what (str): What the state dict should be, for the message.

    Returns:
        dict[str, Tensor]: The same tensors under new keys, in their order.

    Raises:
        ValueError: If there is no key at all, or one that no rule matches.
    """
    if not state:
        raise ValueError(f'there are no weights: this is no {what}')
    renamed, unknown = {}, []
    for key, value in state.items():
        for pattern, new in rules:
            match = re.fullmatch(pattern, key)
            if match is not None:
                if new is not None:
                    renamed[match.expand(new)] = value
                break
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f'{len(unknown)} of {len(state)} keys are not those of a {what}: '
            f'{shorten(unknown)}. The file holds {describe_prefixes(state)}.'
        )
    return renamed


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights under a prefix, which is taken off.

    Args:
        state (Mapping[str, Tensor]): Weights by key.
        prefix (str): Such as ``'backbone.'``.

    Returns:
        dict[str, Tensor]: Weights by the rest of the key.
    """
    return {
        key[len(prefix) :]: value
        for key, value in state.items()
        if key.startswith(prefix)
    }


def differences(
    expected: Mapping[str, Sequence[int]], state: Mapping[str, Tensor]
) -> list[str]:
    """Where keys and shapes of a state dict are not as expected.

    A missing ``num_batches_tracked`` is none: torch counts from 0 there, and
    old files do not have it.

    Args:
        expected (Mapping[str, Sequence[int]]): Shapes by key.
        state (Mapping[str, Tensor]): Weights by key.

    Returns:
        list[str]: One text for each key that is missing, is too many or has
        another shape.
    """
    found = []
    for key, shape in expected.items():
        if key not in state:
            if not key.endswith('num_batches_tracked'):
                found.append(f'{key} is missing')
        elif tuple(state[key].shape) != tuple(shape):
            found.append(
                f'{key} is {tuple(state[key].shape)} instead of {tuple(shape)}'
            )
    found += [f'{key} is unknown' for key in state if key not in expected]
    return found
