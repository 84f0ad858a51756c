"""A checkpoint of which nothing fits must never be ignored.

mmengine loads leniently: keys that the model does not have, or has in
another shape, are logged and skipped, even if that leaves nothing. A linear
probe would then quietly measure random weights.
"""

import os.path as osp
import re
from collections import Counter
from collections.abc import Mapping

from mmengine.logging import print_log
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner.checkpoint import _load_checkpoint
from mmpretrain.registry import WEIGHT_INITIALIZERS
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


@WEIGHT_INITIALIZERS.register_module(name='Pretrained')
class CheckedPretrainedInit(PretrainedInit):
    """mmengine's ``Pretrained``, which refuses a checkpoint that cannot fit.

    Registered under the same name in mmpretrain's scope, so every
    ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')``
    of a config that imports mmunimoco is checked.

    Args:
        checkpoint (str): Path or URL of the checkpoint.
        prefix (str, optional): Which part of the checkpoint to load.
            Defaults to None, the whole.
        map_location (str): Where to load it to. Defaults to 'cpu'.
    """

    def __call__(self, module: nn.Module) -> None:
        """Check, then load.

        Args:
            module (nn.Module): The module to initialise.

        Raises:
            ValueError: If the path is empty, no key has the prefix, nothing
                fits, or, with a prefix, the weights are of another
                architecture: a shape differs or most parameters are missing.
            FileNotFoundError: If there is no such file.
        """
        source = f'the checkpoint {self.checkpoint}'
        state = self._read()
        if self.prefix is not None:
            state = self._strip(state)
            source += f" under the prefix '{self.prefix}'"
        check_match(module, state, source)
        found, misshapen = compare_parameters(module, state)
        total = len(list(module.parameters()))
        if self.prefix is not None and (misshapen or 2 * found < total):
            raise ValueError(
                f'{source} is of another architecture than the '
                f'{type(module).__name__} to be initialised: {found} of '
                f'{total} parameters fit, '
                + (
                    f'{misshapen[0]} and {len(misshapen) - 1} more have '
                    'another shape. '
                    if misshapen
                    else 'the others are missing. '
                )
                + 'Use the config of the architecture that was pre-trained.'
            )
        super().__call__(module)
        print_log(
            f'{found} of {total} parameters of {type(module).__name__} '
            f'loaded from {source}',
            logger='current',
        )

    def _read(self) -> dict[str, Tensor]:
        path = self.checkpoint
        if not path:
            raise ValueError(
                'init_cfg.checkpoint is empty: name the pre-trained '
                'checkpoint, for example with --cfg-options '
                'model.backbone.init_cfg.checkpoint=PATH'
            )
        if '://' not in path and not osp.isfile(path):
            raise FileNotFoundError(
                f'the checkpoint {path} (init_cfg.checkpoint) does not exist.'
            )
        checkpoint = _load_checkpoint(path, map_location=self.map_location)
        return state_dict_of(checkpoint, unwrap=self.prefix is None)

    def _strip(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        prefix = self.prefix.rstrip('.') + '.'
        part = {
            key[len(prefix) :]: value
            for key, value in state.items()
            if key.startswith(prefix)
        }
        if not part:
            raise ValueError(
                f'no key of the checkpoint {self.checkpoint} starts with '
                f"init_cfg.prefix='{self.prefix}'. The prefixes in it are "
                f'{describe_prefixes(state)}.'
            )
        return part
