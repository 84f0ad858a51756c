"""A checkpoint of which nothing fits must never be ignored.

mmengine loads leniently: keys that the model does not have, or has in
another shape, are logged and skipped, even if that leaves nothing. A linear
probe would then quietly measure random weights.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from mmengine.model import BaseTTAModel, is_model_wrapper
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


def bare_model(model: nn.Module) -> nn.Module:
    """Take off what adds ``module.`` to keys and is no part of checkpoints.

    Args:
        model (nn.Module): Maybe wrapped for several processes, or for
            test-time augmentation.

    Returns:
        nn.Module: The model itself.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


@dataclass
class StateMatch:
    """How weights compare with what a module has.

    Attributes:
        matched (list[str]): Tensors of the module that the weights fill.
        missing (list[str]): Tensors of the module that they lack.
        misshapen (list[str]): Those that are there in another shape, each
            with both shapes.
        unused (list[str]): Keys that the module has not.
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


def compare_state(
    module: nn.Module, state: Mapping[str, Tensor]
) -> StateMatch:
    """Compare weights with the parameters and buffers of a module.

    A batch norm's count of batches is never missing: files of old releases
    of torch have none, and nothing is computed from it.

    Args:
        module (nn.Module): The module to be filled.
        state (Mapping[str, Tensor]): Weights by the module's own keys.

    Returns:
        StateMatch: Names in the order of the module, then of the weights.
    """
    match = StateMatch()
    own = module.state_dict()
    for name, tensor in own.items():
        if name not in state:
            if not name.endswith('num_batches_tracked'):
                match.missing.append(name)
        elif _fits(name, tensor, state[name]):
            match.matched.append(name)
        else:
            match.misshapen.append(
                f'{name} ({tuple(state[name].shape)} in the file, '
                f'{tuple(tensor.shape)} in the model)'
            )
    match.unused = [key for key in state if key not in own]
    return match


def _fits(name: str, own: Tensor, stored: Tensor) -> bool:
    """Whether a tensor has its shape; a ViT resizes (1, L, C) positions."""
    if own.shape == stored.shape:
        return True
    return (
        name.split('.')[-1] == 'pos_embed'
        and own.ndim == stored.ndim == 3
        and own.shape[-1] == stored.shape[-1]
    )


def shorten(names: Collection[str], limit: int = 8) -> str:
    """List names, and count those beyond a limit.

    Args:
        names (Collection[str]): The names.
        limit (int): How many are listed. Defaults to 8.

    Returns:
        str: Such as ``'conv1.weight, bn1.weight and 63 more'``.
    """
    listed = ', '.join(list(names)[:limit])
    more = len(names) - limit
    return f'{listed} and {more} more' if more > 0 else listed


def describe_prefixes(keys: Iterable[str], parent: str = '') -> str:
    """The first parts of keys, with their counts.

    Args:
        keys (Iterable[str]): The keys, or weights by key.
        parent (str): What all keys start with; the parts that follow are
            counted. Defaults to ''.

    Returns:
        str: Such as ``'backbone.' (318 keys), 'neck.' (4 keys)``. The
        ``module.`` of a wrapper stands together with what follows it.
    """
    first = re.compile(re.escape(parent) + r'(module\.)?[^.]+\.')
    found = ((first.match(key), key) for key in keys)
    counts = Counter(match[0] if match else key for match, key in found)
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
    names = {name for name, _ in module.named_parameters()}
    if names and names.isdisjoint(compare_state(module, state).matched):
        raise ValueError(
            f'nothing in {source} fits the {len(names)} parameters of '
            f'{type(module).__name__}. It holds {describe_prefixes(state)}; '
            f'the model asks for {describe_prefixes(module.state_dict())}. '
            'Check that it is a checkpoint of this architecture.'
        )
