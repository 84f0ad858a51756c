"""mmengine's Pretrained initializer, which refuses what does not fit."""

import logging
import os.path as osp

from mmengine.logging import print_log
from mmengine.model.weight_init import (
    ConstantInit,
    KaimingInit,
    PretrainedInit,
    update_init_info,
)
from mmengine.runner.checkpoint import _load_checkpoint
from mmpretrain.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmunimoco.utils.checkpoint import (
    StateMatch,
    check_match,
    compare_state,
    describe_prefixes,
    shorten,
    state_dict_of,
)
from mmunimoco.utils.safe_load import read_checkpoint

# Instead of a path: train from random weights, and mean it.
NO_CHECKPOINT = 'none'


@WEIGHT_INITIALIZERS.register_module(name='Pretrained')
class CheckedPretrainedInit(PretrainedInit):
    """mmengine's ``Pretrained``, which refuses what does not fit.

    Registered under the same name in mmpretrain's scope, so every
    ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')``
    of a config that imports mmunimoco is checked. Configs of mmdet and mmseg
    say ``type='mmpretrain.Pretrained'``.

    With a prefix, every parameter and buffer of the module must be in the
    file, in its shape. Without one, it is enough that something fits. Either
    way a report of what was loaded goes to the log.

    Args:
        checkpoint (str): Path or URL of the checkpoint, or 'none' for random
            weights.
        prefix (str, optional): Which part of the checkpoint to load.
            Defaults to None, the whole.
        map_location (str): Where to load it to. Defaults to 'cpu'.
        allow_missing (tuple[str]): Names of parameters and buffers of the
            module, or what they start with, that the file lacks by design,
            such as ``('norm.',)``. Defaults to none.
    """

    def __init__(
        self,
        checkpoint: str,
        prefix: str | None = None,
        map_location: str = 'cpu',
        allow_missing: tuple[str, ...] | str = (),
    ) -> None:
        super().__init__(checkpoint, prefix, map_location)
        if isinstance(allow_missing, str):
            allow_missing = (allow_missing,)
        self.allow_missing = tuple(allow_missing)

    def __call__(self, module: nn.Module) -> None:
        """Check, then load.

        Args:
            module (nn.Module): The module to initialise.

        Raises:
            ValueError: If the path is empty, the file is damaged, no key has
                the prefix, nothing fits, or, with a prefix, a tensor of the
                module is missing or has another shape.
            FileNotFoundError: If there is no such file.
        """
        if self.checkpoint == NO_CHECKPOINT:
            _leave_random(module)
            return
        whole = self._read()
        state = whole if self.prefix is None else self._strip(whole)
        check_match(module, state, self._source())
        match = compare_state(module, state)
        if self.prefix is not None:
            self._check_complete(module, match, whole)
        _initialize_children(module)
        # All of it fits, or is left out and reported.
        module.load_state_dict(
            {key: state[key] for key in match.matched}, strict=False
        )
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())
        partly = self.prefix is None and (match.missing or match.misshapen)
        print_log(
            self._report(module, match, whole),
            logger='current',
            level=logging.WARNING if partly else logging.INFO,
        )

    def _source(self) -> str:
        source = f'the checkpoint {self.checkpoint}'
        if self.prefix is not None:
            source += f" under the prefix '{self.prefix}'"
        return source

    def _read(self) -> dict[str, Tensor]:
        path = self.checkpoint
        if not path:
            raise ValueError(
                'init_cfg.checkpoint is empty: name the pre-trained '
                'checkpoint, for example with --cfg-options '
                'model.backbone.init_cfg.checkpoint=PATH, or, for detection '
                'and segmentation, in the environment variable PRETRAINED '
                "('none' for random weights)"
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
        prefix = self._prefix()
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

    def _prefix(self) -> str:
        return self.prefix.rstrip('.') + '.'

    def _check_complete(
        self, module: nn.Module, match: StateMatch, whole: dict[str, Tensor]
    ) -> None:
        missing = [
            name
            for name in match.missing
            if not name.startswith(self.allow_missing)
        ]
        if not missing and not match.misshapen:
            return
        faults = []
        if missing:
            faults.append(f'missing are {shorten(missing)}')
        if match.misshapen:
            faults.append(f'of another shape are {shorten(match.misshapen)}')
        raise ValueError(
            f'{self._source()} is of another architecture than the '
            f'{type(module).__name__} to be initialised, or incomplete: '
            f'{len(match.matched)} of {len(module.state_dict())} tensors '
            f'fit; {"; ".join(faults)}. The prefixes in the file are '
            f'{describe_prefixes(whole)}. Use the config of the '
            'architecture that was pre-trained; what the file lacks by '
            'design is named in init_cfg.allow_missing.'
        )

    def _report(
        self, module: nn.Module, match: StateMatch, whole: dict[str, Tensor]
    ) -> str:
        """Say in a block what became of the module and of the file."""
        total = len(module.state_dict())
        missing = shorten(match.missing, 20) or 'none'
        if match.missing and self.prefix is not None:
            missing += ' (allowed)'
        lines = [
            f'Load report of {type(module).__name__}: {self._source()}',
            f'matched: {len(match.matched)} of {total} tensors',
            f'missing: {missing}',
        ]
        if match.misshapen:
            lines.append(f'of another shape: {shorten(match.misshapen, 20)}')
        prefix = '' if self.prefix is None else self._prefix()
        # Whole stages of a backbone, and whole parts of the file: its neck.
        inside = [prefix + key for key in match.unused]
        outside = [key for key in whole if not key.startswith(prefix)]
        unused = [
            describe_prefixes(keys, parent)
            for keys, parent in ((inside, prefix), (outside, ''))
            if keys
        ]
        lines.append(f'unused: {", ".join(unused) or "none"}')
        return '\n    '.join(lines)


def _initialize_children(module: nn.Module) -> None:
    """Have the children initialise themselves before the weights arrive.

    mmengine does so, and hosts leave alone what was loaded, but only for
    ``type='Pretrained'`` to the letter. With a scope in front, layers and
    position embeddings would be overwritten by random numbers afterwards.
    """
    for child in module.children():
        if hasattr(child, 'init_weights'):
            if not getattr(child, 'is_init', False):
                child.init_weights()
            child.is_init = True
    if isinstance(getattr(module, 'init_cfg', None), dict):
        module.init_cfg['type'] = 'Pretrained'


def _leave_random(module: nn.Module) -> None:
    """Initialise a ResNet as OpenMMLab's; others have their own way."""
    print_log(
        f"Load report of {type(module).__name__}: checkpoint='none', the "
        'weights are random',
        logger='current',
        level=logging.WARNING,
    )
    # Nothing was loaded, so hosts may initialise what they want to.
    module.init_cfg = None
    if any(isinstance(m, _BatchNorm) for m in module.modules()):
        KaimingInit(layer='Conv2d')(module)
        ConstantInit(val=1, layer='_BatchNorm')(module)
