"""A checkpoint of which nothing fits must never be ignored.

mmengine loads leniently: keys that the model does not have, or has in
another shape, are logged and skipped, even if that leaves nothing. A linear
probe would then quietly measure random weights.
"""

import re
from collections import Counter
from collections.abc import Mapping

from torch import Tensor, nn


def state_dict_of(checkpoint: Mapping, unwrap: bool) -> dict[str, Tensor]:
    """The weights in a checkpoint.

    Args:
        checkpoint (Mapping): A loaded checkpoint, or a bare state dict.
        unwrap (bool): Take the ``module.`` of wrappers off the keys, as
            mmengine does when it loads a whole model (and does not where a
            prefix is given).

    Returns:
        dict[str, Tensor]: Weights by key; what is no tensor is left out.
    """
    state = checkpoint.get('state_dict', checkpoint)
    return {
        re.sub(r'^module\.', '', key) if unwrap else key: value
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def compare_parameters(
    module: nn.Module, state: Mapping[str, Tensor]
) -> tuple[int, list[str]]:
    """Which parameters of a module a state dict would fill.

    Args:
        module (nn.Module): The module.
        state (Mapping[str, Tensor]): Weights by the module's own keys.

    Returns:
        tuple[int, list[str]]: How many parameters are there in their shape,
        and the names of those that are there in another shape.
    """
    found, misshapen = 0, []
    for name, own in module.named_parameters():
        if name not in state:
            continue
        if _loadable(own, state[name]):
            found += 1
        else:
            misshapen.append(name)
    return found, misshapen


def _loadable(own: Tensor, stored: Tensor) -> bool:
    """Whether a stored tensor fits; a ViT resizes (1, L, C) positions."""
    if own.shape == stored.shape:
        return True
    return own.ndim == stored.ndim == 3 and own.shape[-1] == stored.shape[-1]


def describe_prefixes(state: Mapping[str, Tensor]) -> str:
    """The first parts of the keys of a state dict, with their counts.

    Args:
        state (Mapping[str, Tensor]): Weights by key.

    Returns:
        str: Such as ``'backbone.' (318 keys), 'neck.' (4 keys)``.
    """
    counts = Counter(
        key.split('.')[0] + '.' if '.' in key else key for key in state
    )
    listed = [
        f"'{name}' ({count} key{'s' if count > 1 else ''})"
        for name, count in counts.most_common(8)
    ]
    if len(counts) > 8:
        listed.append(f'and {len(counts) - 8} more')
    return ', '.join(listed) or 'no weights at all'


def check_match(
    module: nn.Module, state: Mapping[str, Tensor], source: str
) -> None:
    """Raise unless at least one parameter of the module is in the weights.

    Args:
        module (nn.Module): The module to be filled.
        state (Mapping[str, Tensor]): Weights by the module's own keys.
        source (str): Where the weights come from, for the message.

    Raises:
        ValueError: If nothing fits.
    """
    found, _ = compare_parameters(module, state)
    total = len(list(module.parameters()))
    if total and not found:
        raise ValueError(
            f'nothing in {source} fits the {total} parameters of '
            f'{type(module).__name__}. It holds {describe_prefixes(state)}; '
            f'the model asks for {describe_prefixes(module.state_dict())}. '
            'Check that it is a checkpoint of this architecture.'
        )
