"""mmengine's Pretrained initializer, which refuses what cannot fit."""

import os.path as osp

from mmengine.logging import print_log
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner.checkpoint import _load_checkpoint
from mmpretrain.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from mmunimoco.utils.checkpoint import (
    check_match,
    compare_parameters,
    describe_prefixes,
    state_dict_of,
)
from mmunimoco.utils.safe_load import read_checkpoint


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
        if '://' in path:  # mmengine's own schemes, such as torchvision://
            checkpoint = _load_checkpoint(path, map_location='cpu')
        else:
            checkpoint = read_checkpoint(path)
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
