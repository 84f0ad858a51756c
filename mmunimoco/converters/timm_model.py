"""ResNets and ViTs for timm (its ResNets are also torchvision's)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from mmpretrain.models import VisionTransformer
from torch import Tensor

from mmunimoco.utils.checkpoint import compare_shapes, shorten
from mmunimoco.utils.config_text import config_value

from .keys import Rule, rename_keys
from .resnet import is_resnet, read_resnet

# mmpretrain's VisionTransformer with a class token, and timm's.
_VIT_RULES: list[Rule] = [
    (r'(cls_token|pos_embed)', r'\1'),
    (r'patch_embed\.projection\.(.+)', r'patch_embed.proj.\1'),
    (r'layers\.(\d+)\.ln([12])\.(.+)', r'blocks.\1.norm\2.\3'),
    (r'layers\.(\d+)\.(attn\.(?:qkv|proj)\..+)', r'blocks.\1.\2'),
    (r'layers\.(\d+)\.ffn\.layers\.0\.0\.(.+)', r'blocks.\1.mlp.fc1.\2'),
    (r'layers\.(\d+)\.ffn\.layers\.1\.(.+)', r'blocks.\1.mlp.fc2.\2'),
    (r'ln1\.(.+)', r'norm.\1'),
]
_VIT_NAMES = {
    192: 'vit_tiny_patch16_224',
    384: 'vit_small_patch16_224',
    768: 'vit_base_patch16_224',
}
# Of MoCo v3, which mmpretrain adds when it builds one.
_HEADS = {'mocov3-s': 12, 'mocov3-small': 12}


@dataclass(frozen=True)
class TimmModel:
    """The model of timm that the weights of a backbone fit.

    Attributes:
        name (str): For ``timm.create_model(name, num_classes=0)``.
        num_features (int): Length of its output.
        first_conv (str): Name of its first layer.
        classifier (str): Name of its last layer, which is left out.
        args (dict): Further arguments of ``create_model``.
    """

    name: str
    num_features: int
    first_conv: str = 'conv1'
    classifier: str = 'fc'
    args: dict = field(default_factory=dict)

    @property
    def lacks_heads(self) -> bool:
        """Whether it is a ViT with an unknown number of heads."""
        return self.name.startswith('vit') and 'num_heads' not in self.args

    def usage(self, path: str) -> str:
        """Return a text with the call that loads a file.

        timm alone would use 6 heads for a ViT-S.

        Args:
            path (str): The file.
        """
        args = {'num_classes': 0, **self.args, 'checkpoint_path': path}
        listed = ', '.join(f'{key}={value!r}' for key, value in args.items())
        text = f'load it with timm.create_model({self.name!r}, {listed})'
        if self.lacks_heads:
            text += (
                '\nand num_heads=...: the checkpoint does not say how many '
                'heads the ViT has'
            )
        return text


def to_timm(
    backbone: Mapping[str, Tensor], meta: Mapping
) -> tuple[TimmModel, dict[str, Tensor]]:
    """Convert a ResNet or ViT to a model of timm with ``num_classes=0``.

    Args:
        backbone (Mapping[str, Tensor]): By mmpretrain's keys, without prefix.
        meta (Mapping): The meta of the checkpoint. The number of heads of a
            ViT is not in its weights; it is read from the config there.

    Returns:
        tuple[TimmModel, dict[str, Tensor]]: The model, and the weights by
        its keys.

    Raises:
        ValueError: If timm has no such model.
    """
    if is_resnet(backbone):
        return _describe_resnet(backbone), dict(backbone)
    if 'patch_embed.projection.weight' not in backbone:
        raise ValueError(
            'this conversion supports plain ResNets and ViTs; the backbone '
            f'has the keys {shorten(backbone)}'
        )
    state = rename_keys(backbone, _VIT_RULES, 'plain ViT of mmpretrain')
    return _describe_vit(state, meta), state


def _describe_resnet(backbone: Mapping[str, Tensor]) -> TimmModel:
    shape = read_resnet(backbone)
    if not shape.is_standard:
        raise ValueError(
            f'the backbone is a {shape}, which torchvision and timm do not '
            'have; their ResNets have a 7x7 stem and 64 channels. The formats '
            'backbone and onnx take any backbone'
        )
    width = 512 if shape.depth < 50 else 2048
    return TimmModel(f'resnet{shape.depth}', width)


def _describe_vit(state: Mapping[str, Tensor], meta: Mapping) -> TimmModel:
    width = state['patch_embed.proj.weight'].shape[0]
    name = _VIT_NAMES.get(width)
    if name is None:
        raise ValueError(
            f'the ViT has a width of {width}; supported are '
            f'{shorten([*map(str, _VIT_NAMES)])}'
        )
    problems = compare_shapes(_vit_shapes(width), state).problems()
    if problems:
        raise ValueError(
            f'the ViT is not a complete {name}: {shorten(problems)}'
        )
    heads = _number_of_heads(meta)
    args = {} if heads is None else {'num_heads': heads}
    return TimmModel(name, width, 'patch_embed.proj', 'head', args)


def _vit_shapes(width: int) -> dict[str, tuple[int, ...]]:
    """Shapes by timm's keys: 12 blocks, patches of 16, images of 224."""
    arch = dict(
        embed_dims=width,
        num_layers=12,
        num_heads=3,  # has no effect on the shapes
        feedforward_channels=4 * width,
    )
    with torch.device('meta'):
        model = VisionTransformer(arch, img_size=224, patch_size=16)
    state = rename_keys(model.state_dict(), _VIT_RULES, 'plain ViT')
    return {key: tuple(value.shape) for key, value in state.items()}


def _number_of_heads(meta: Mapping) -> int | None:
    backbone = config_value(meta.get('cfg'), 'model', 'backbone') or {}
    arch = backbone.get('arch')
    if isinstance(arch, dict):
        return arch.get('num_heads')
    if not isinstance(arch, str):
        return None
    known = VisionTransformer.arch_zoo.get(arch, {})
    return _HEADS.get(arch, known.get('num_heads'))
