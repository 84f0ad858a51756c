"""mmengine's Pretrained initializer, but weights that do not fit raise."""

import logging
import os.path as osp

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model.weight_init import (
    ConstantInit,
    KaimingInit,
    PretrainedInit,
    update_init_info,
)
from mmengine.runner import Runner
from mmengine.runner.checkpoint import _load_checkpoint
from mmpretrain.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmunimoco.utils.checkpoint import (
    StateMatch,
    check_complete,
    describe_prefixes,
    essential_part,
    shorten,
    state_dict_of,
)
from mmunimoco.utils.safe_load import read_checkpoint

# Instead of a path: train from random weights on purpose.
NO_CHECKPOINT = 'none'


@WEIGHT_INITIALIZERS.register_module(name='Pretrained')
class CheckedPretrainedInit(PretrainedInit):
    """mmengine's ``Pretrained``, but weights that do not fit are an error.

    Registered under the same name in mmpretrain's scope, so it checks every
    ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')``
    of a config that imports mmunimoco. Configs of mmdet and mmseg name it
    ``'mmpretrain.Pretrained'``.

    Every parameter and buffer of the module must be in the file, with its
    shape; of a model with a backbone, those of the backbone. A report of what
    was loaded is logged.

    Args:
        checkpoint (str): Path or URL of the checkpoint, or 'none' for random
            weights.
        prefix (str, optional): Prefix of the keys to load. Defaults to None,
            all of them.
        map_location (str): Device to load to. Defaults to 'cpu'.
        allow_missing (tuple[str]): Names, or prefixes of names, of parameters
            and buffers of the module that the file lacks by design, such as
            ``('norm.',)``. Defaults to none.
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
                the prefix, or a tensor that must be filled is missing or has
                another shape.
            FileNotFoundError: If there is no such file.
        """
        if self.checkpoint == NO_CHECKPOINT:
            _leave_random(module)
            return
        whole = self._read()
        state = whole if self.prefix is None else self._strip(whole)
        match = check_complete(
            module, state, self._source(), self.allow_missing
        )
        _initialize_children(module)
        module.load_state_dict(
            {key: state[key] for key in match.matched}, strict=False
        )
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())
        partly = essential_part(module) and (match.missing or match.misshapen)
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

    def _report(
        self, module: nn.Module, match: StateMatch, whole: dict[str, Tensor]
    ) -> str:
        """Text that says what was loaded, and what was not."""
        total = len(module.state_dict())
        missing = shorten(match.missing, 20) or 'none'
        if match.missing and not essential_part(module):
            missing += ' (allowed)'
        lines = [
            f'Load report of {type(module).__name__}: {self._source()}',
            f'matched: {len(match.matched)} of {total} tensors',
            f'missing: {missing}',
        ]
        if match.misshapen:
            lines.append(f'of another shape: {shorten(match.misshapen, 20)}')
        prefix = '' if self.prefix is None else self._prefix()
        # By stage of the backbone, and by part of the file, such as its neck.
        inside = [prefix + key for key in match.unused]
        outside = [key for key in whole if not key.startswith(prefix)]
        unused = [
            describe_prefixes(keys, parent)
            for keys, parent in ((inside, prefix), (outside, ''))
            if keys
        ]
        lines.append(f'unused: {", ".join(unused) or "none"}')
        return '\n    '.join(lines)


class RandomWeightsHook(Hook):
    """Initialise a model that is tested without a checkpoint.

    mmengine does so only for training. The weights are those from which a
    training with the same seed starts.
    """

    # After before_run of all hooks: with channels-last weights, other random
    # numbers go into each of them.
    priority = 'VERY_HIGH'

    def before_test(self, runner: Runner) -> None:
        """Initialise the weights."""
        runner._init_model_weights()


def _initialize_children(module: nn.Module) -> None:
    """Let the children initialise themselves before the weights are loaded.

    mmengine does so, and hosts keep what was loaded, but only if ``type`` is
    exactly 'Pretrained'. With a scope in front, layers and position
    embeddings would be overwritten by random numbers afterwards.
    """
    for child in module.children():
        if hasattr(child, 'init_weights'):
            if not getattr(child, 'is_init', False):
                child.init_weights()
            child.is_init = True
    if isinstance(getattr(module, 'init_cfg', None), dict):
        module.init_cfg['type'] = 'Pretrained'


def _leave_random(module: nn.Module) -> None:
    """Initialise a ResNet as OpenMMLab does; others initialise themselves."""
    print_log(
        f"Load report of {type(module).__name__}: checkpoint='none', the "
        'weights are random',
        logger='current',
        level=logging.WARNING,
    )
    # Nothing was loaded, so hosts may initialise what they like.
    module.init_cfg = None
    if any(isinstance(m, _BatchNorm) for m in module.modules()):
        KaimingInit(layer='Conv2d')(module)
        ConstantInit(val=1, layer='_BatchNorm')(module)
