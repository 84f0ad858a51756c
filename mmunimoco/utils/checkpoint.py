"""Compare the weights in a checkpoint with a model.

mmengine loads leniently: keys that the model does not have, or has in another
shape, are logged and skipped, even if nothing is left. A linear probe would
then silently measure random weights.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn


def state_dict_of(checkpoint: Mapping, unwrap: bool) -> dict[str, Tensor]:
    """Return the weights in a checkpoint.

    Args:
        checkpoint (Mapping): A loaded checkpoint, or a bare state dict.
        unwrap (bool): Whether to strip ``module.`` from the keys, as mmengine
            does when it loads a whole model (and does not for a prefix).

    Returns:
        dict[str, Tensor]: Weights by key; anything but tensors is left out.
    """
    state = checkpoint.get('state_dict', checkpoint)
    return {
        re.sub(r'^module\.', '', key) if unwrap else key: value
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def bare_model(model: nn.Module) -> nn.Module:
    """Unwrap a model from DDP and test-time augmentation.

    Args:
        model (nn.Module): The model, possibly wrapped.

    Returns:
        nn.Module: The model whose keys are those of checkpoints.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


@dataclass
class StateMatch:
    """How weights compare with what is expected.

    Attributes:
        matched (list[str]): Expected keys that are there.
        missing (list[str]): Expected keys that are not.
        misshapen (list[str]): Keys of another shape, each with both shapes.
        unused (list[str]): Keys that are not expected.
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """Describe each key that is missing, misshapen or not expected."""
        return [
            *(f'{key} is missing' for key in self.missing),
            *self.misshapen,
            *(f'{key} is unknown' for key in self.unused),
        ]


def compare_shapes(
    expected: Mapping[str, Sequence[int]], state: Mapping[str, Tensor]
) -> StateMatch:
    """Compare weights with expected shapes.

    ``num_batches_tracked`` of a batch norm is never missing: files of old
    torch releases do not have it, and no result depends on it.

    Args:
        expected (Mapping[str, Sequence[int]]): Shapes by key.
        state (Mapping[str, Tensor]): Weights by key.

    Returns:
        StateMatch: Keys in the order of ``expected``, then of ``state``.
    """
    match = StateMatch(unused=[key for key in state if key not in expected])
    for key, shape in expected.items():
        if key not in state:
            if not key.endswith('num_batches_tracked'):
                match.missing.append(key)
        elif tuple(state[key].shape) == tuple(shape):
            match.matched.append(key)
        else:
            match.misshapen.append(
                f'{key} ({tuple(state[key].shape)} in the file, '
                f'{tuple(shape)} in the model)'
            )
    return match


def compare_state(
    module: nn.Module, state: Mapping[str, Tensor]
) -> StateMatch:
    """Compare weights with the parameters and buffers of a module.

    Args:
        module (nn.Module): The module to be loaded.
        state (Mapping[str, Tensor]): Weights by the module's keys.

    Returns:
        StateMatch: As :func:`compare_shapes`; a position embedding of a ViT,
        (1, L, C), may have another L, because it is resized.
    """
    shapes = {}
    for key, own in module.state_dict().items():
        stored = state.get(key, own)
        resized = (
            key.split('.')[-1] == 'pos_embed'
            and own.ndim == stored.ndim == 3
            and own.shape[-1] == stored.shape[-1]
        )
        shapes[key] = stored.shape if resized else own.shape
    return compare_shapes(shapes, state)


def shorten(names: Collection[str], limit: int = 8) -> str:
    """Join the first names and count the others.

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
    """List the first components of keys with their counts.

    Args:
        keys (Iterable[str]): The keys, or weights by key.
        parent (str): Common prefix of the keys; the component after it is
            counted. Defaults to ''.

    Returns:
        str: Such as ``'backbone.' (318 keys), 'neck.' (4 keys)``. A
        wrapper's ``module.`` is joined with the component that follows.
    """
    first = re.compile(re.escape(parent) + r'(module\.)?[^.]+\.')
    found = ((first.match(key), key) for key in keys)
    counts = Counter(match[0] if match else key for match, key in found)
    listed = [
        f"'{name}' ({count} key{'s' if count > 1 else ''})"
        for name, count in counts.most_common()
    ]
    return shorten(listed) or 'no weights at all'


def check_match(
    module: nn.Module, state: Mapping[str, Tensor], source: str
) -> None:
    """Raise unless the weights contain at least one of the parameters.

    Args:
        module (nn.Module): The module to be loaded.
        state (Mapping[str, Tensor]): Weights by the module's keys.
        source (str): Where the weights come from, for the message.

    Raises:
        ValueError: If no parameter matches.
    """
    names = {name for name, _ in module.named_parameters()}
    if names and names.isdisjoint(compare_state(module, state).matched):
        raise ValueError(
            f'nothing in {source} fits the {len(names)} parameters of '
            f'{type(module).__name__}. It holds {describe_prefixes(state)}; '
            f'the model asks for {describe_prefixes(module.state_dict())}. '
            'Check that it is a checkpoint of this architecture.'
        )


def check_complete(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    allow_missing: Sequence[str] = (),
    option: str = 'init_cfg.allow_missing',
    part: str | None = None,
) -> StateMatch:
    """Raise unless the weights fill a model, or the essential part of it.

    Args:
        module (nn.Module): The module to be loaded.
        state (Mapping[str, Tensor]): Weights by the module's keys.
        source (str): Where the weights come from, for the message.
        allow_missing (Sequence[str]): Names, or prefixes of names, that may
            be missing or have another shape. Defaults to none.
        option (str): The config field of ``allow_missing``.
        part (str, optional): Prefix of the keys that must be filled; '' for
            all. Defaults to None: 'backbone.' if the module has such keys,
            because heads differ between tasks, otherwise all.

    Returns:
        StateMatch: The comparison with the whole module.

    Raises:
        ValueError: If no parameter matches, or one of the part is missing or
            has another shape.
    """
    check_match(module, state, source)
    match = compare_state(module, state)
    if part is None:
        part = essential_part(module)
    missing, misshapen = (
        [
            name
            for name in names
            if name.startswith(part)
            and not name.startswith(tuple(allow_missing))
        ]
        for names in (match.missing, match.misshapen)
    )
    faults = []
    if missing:
        faults.append(f'{len(missing)} are missing: {shorten(missing)}')
    if misshapen:
        faults.append(
            f'{len(misshapen)} have another shape: {shorten(misshapen)}'
        )
    if not faults:
        return match
    total = sum(key.startswith(part) for key in module.state_dict())
    fit = sum(key.startswith(part) for key in match.matched)
    raise ValueError(
        f'{source} is of another architecture than the '
        f'{type(module).__name__}{f" ({part}*)" if part else ""} it is loaded '
        f'into, or incomplete: {fit} of {total} tensors fit; '
        f'{"; ".join(faults)}. It holds {describe_prefixes(state)}. Use the '
        'config of the architecture that was trained; list what the file '
        f'lacks by design in {option}.'
    )


def essential_part(module: nn.Module) -> str:
    """'backbone.' for a model with a backbone, '' (everything) for others."""
    has_backbone = any(
        key.startswith('backbone.') for key in module.state_dict()
    )
    return 'backbone.' if has_backbone else ''
