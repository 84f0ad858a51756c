"""Which backbones compute the same as those of other projects.

Weights do not show everything: dilations, the eps of a norm or the kind of a
convolution change the features, but neither keys nor shapes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

_BATCH_NORMS = ('BN', 'BN2d', 'SyncBN', 'SplitBatchNorm')
# Without effect on the features of a trained network.
_TRAINING = ('type', '_scope_', 'init_cfg', 'frozen_stages', 'norm_eval')
_TRAINING += ('with_cp', 'drop_path_rate')


class _Known(NamedTuple):
    """Options of a backbone for which other projects compute the same.

    Attributes:
        types: The backbones of mmpretrain.
        free: Options without effect, or compared by the shapes of weights.
        fixed: Values of all others.
        norm: Types of the norm, and its eps.
    """

    types: tuple[str, ...]
    free: tuple[str, ...]
    fixed: Mapping[str, tuple]
    norm: tuple[tuple[str, ...], float]


_RESNET = _Known(
    types=('ResNet', 'ResNet_CIFAR'),
    free=(
        *(*_TRAINING, 'zero_init_residual', 'depth', 'in_channels'),
        *('stem_channels', 'base_channels', 'num_stages', 'expansion'),
    ),
    fixed=dict(
        strides=([1, 2, 2, 2],),
        dilations=([1, 1, 1, 1],),
        out_indices=([3], [2, 3], [1, 2, 3], [0, 1, 2, 3]),
        style=('pytorch',),
        deep_stem=(False,),
        avg_down=(False,),
        conv_cfg=(None,),
    ),
    norm=(_BATCH_NORMS, 1e-5),
)
_VIT = _Known(
    types=('VisionTransformer', 'MoCoV3ViT'),
    free=(
        *(*_TRAINING, 'arch', 'img_size', 'patch_size', 'in_channels'),
        # Used where the positional embedding gets another size.
        *('drop_rate', 'interpolate_mode', 'stop_grad_conv1'),
    ),
    fixed=dict(
        out_indices=(-1, 11, [-1], [11]),
        qkv_bias=(True,),
        final_norm=(True,),
        out_type=('cls_token',),
        with_cls_token=(True,),
        layer_scale_init_value=(0,),
        patch_cfg=({},),
        layer_cfgs=({},),
        pre_norm=(False,),
    ),
    norm=(('LN',), 1e-6),
)
_NORM_OPTIONS = ('type', '_scope_', 'requires_grad', 'momentum', 'eps')
_NORM_OPTIONS += ('num_splits',)


def check_options(backbone: Mapping[str, Any]) -> None:
    """Refuse a backbone that other projects may compute otherwise.

    Args:
        backbone (Mapping[str, Any]): Its config; empty if it is not known.

    Raises:
        ValueError: If its type, or an option or its value, is not known to
            give the same features; names them.
    """
    if not backbone:
        return
    name = str(backbone.get('type')).removeprefix('mmpretrain.')
    known = next((x for x in (_RESNET, _VIT) if name in x.types), None)
    if known is None:
        raise ValueError(
            f'the backbone is a {name}; other projects are known to compute '
            f'the same only for {", ".join(_RESNET.types + _VIT.types)}'
        )
    faults = [
        f'{option}={value!r}'
        for option, value in backbone.items()
        if not _is_known(known, option, value)
    ]
    if faults:
        raise ValueError(
            f'the {name} was trained with {", ".join(faults)}; torchvision, '
            'timm and detectron2 have no such option, or compute something '
            'else with these weights. --format backbone keeps the names of '
            'mmpretrain.'
        )


def _is_known(known: _Known, option: str, value: Any) -> bool:
    if option in known.free:
        return True
    if option == 'norm_cfg':
        return _is_known_norm(value, *known.norm)
    if isinstance(value, tuple):
        value = list(value)
    return value in known.fixed.get(option, ())


def _is_known_norm(config: Any, types: tuple[str, ...], eps: float) -> bool:
    if not isinstance(config, Mapping):
        return False
    # LN has torch's eps of 1e-5 unless it is given.
    return (
        str(config.get('type')).rpartition('.')[2] in types
        and config.get('eps', 1e-5) == eps
        and set(config) <= set(_NORM_OPTIONS)
    )
