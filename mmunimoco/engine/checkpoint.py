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


def state_dict_of(checkpoint: Mapping) -> dict[str, Tensor]:
    """The weights in a checkpoint, without the ``module.`` of wrappers.

    Args:
        checkpoint (Mapping): A loaded checkpoint, or a bare state dict.

    Returns:
        dict[str, Tensor]: Weights by key; what is no tensor is left out.
    """
    state = checkpoint.get('state_dict', checkpoint)
    return {
        re.sub(r'^module\.', '', key): value
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def matching_parameters(
    module: nn.Module, state: Mapping[str, Tensor]
) -> tuple[int, int]:
    """Count the parameters of a module that a state dict would fill.

    Args:
        module (nn.Module): The module.
        state (Mapping[str, Tensor]): Weights by the module's own keys.

    Returns:
        tuple[int, int]: Parameters of equal name and number of dimensions
        (a ViT's position embedding is resized on loading) with equal
        trailing size, and all parameters of the module.
    """
    own = dict(module.named_parameters())
    found = sum(
        key in state and _loadable(value, state[key])
        for key, value in own.items()
    )
    return found, len(own)


def _loadable(own: Tensor, stored: Tensor) -> bool:
    """Whether a stored tensor fits, perhaps after resizing the positions."""
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
    found, total = matching_parameters(module, state)
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
                fits, or with a prefix less than half of the parameters are
                there (another architecture of the same family).
            FileNotFoundError: If there is no such file.
        """
        state = self._read()
        if self.prefix is not None:
            state = self._strip(state)
        source = f'the checkpoint {self.checkpoint}' + (
            f" under the prefix '{self.prefix}'" if self.prefix else ''
        )
        check_match(module, state, source)
        found, total = matching_parameters(module, state)
        if self.prefix is not None and 2 * found < total:
            raise ValueError(
                f'{source} has only {found} of the {total} parameters of '
                f'{type(module).__name__} in the same shape: it is of '
                'another architecture. Use the config of the architecture '
                'that was pre-trained.'
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
        return state_dict_of(checkpoint)

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
