"""Rename the keys of a state dict without silently dropping any."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from mmunimoco.utils.checkpoint import describe_prefixes, shorten

# Regular expression of a key, and its replacement as for re.sub.
Rule = tuple[str, str]


def rename_keys(
    state: Mapping[str, Tensor], rules: Sequence[Rule], what: str
) -> dict[str, Tensor]:
    """Rename every key by the first rule that matches the whole key.

    Args:
        state (Mapping[str, Tensor]): Weights by key.
        rules (Sequence[Rule]): Patterns and replacements.
        what (str): What the state dict should be, for the message.

    Returns:
        dict[str, Tensor]: The same tensors under new keys, in their order.

    Raises:
        ValueError: If there is no key, or one that no rule matches.
    """
    if not state:
        raise ValueError(f'there are no weights: this is not a {what}')
    renamed, unknown = {}, []
    for key, value in state.items():
        for pattern, replacement in rules:
            match = re.fullmatch(pattern, key)
            if match is not None:
                renamed[match.expand(replacement)] = value
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
    """Select the weights under a prefix and strip it.

    Args:
        state (Mapping[str, Tensor]): Weights by key.
        prefix (str): Such as ``'backbone.'``.

    Returns:
        dict[str, Tensor]: Weights by the rest of their keys.
    """
    return {
        key.removeprefix(prefix): value
        for key, value in state.items()
        if key.startswith(prefix)
    }
