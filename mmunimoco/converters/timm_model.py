"""Which model of timm has a backbone's weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mmpretrain.models import VisionTransformer
from torch import Tensor

from mmunimoco.utils.checkpoint import shorten
from mmunimoco.utils.config_text import config_value

from .renaming import Rule, differences, rename_keys
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
# MoCo v3's own, which mmpretrain adds when it builds one.
_HEADS = {'mocov3-s': 12, 'mocov3-small': 12}


@dataclass(frozen=True)
class TimmModel:
    """A model of timm that a backbone's weights fit.

    Args:
        name (str): For ``timm.create_model(name, num_classes=0)``.
        num_features (int): Length of its output.
        first_conv (str): Its first layer.
        classifier (str): Its last layer, which is not there.
        args (dict): Further arguments of ``create_model``.
    """

    name: str
    num_features: int
    first_conv: str = 'conv1'
    classifier: str = 'fc'
    args: dict = field(default_factory=dict)

    def call(self, path: str) -> str:
        """How to make the model with the weights of a file.

        Args:
            path (str): The file.

        Returns:
            str: A line of Python.
        """
        args = {'num_classes': 0, **self.args, 'checkpoint_path': path}
        listed = ', '.join(f'{key}={value!r}' for key, value in args.items())
        return f'timm.create_model({self.name!r}, {listed})'


def timm_keys(backbone: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a ResNet or a ViT as timm names them.

    Args:
        backbone (Mapping[str, Tensor]): By mmpretrain's keys, without prefix.

    Returns:
        dict[str, Tensor]: The same tensors.

    Raises:
        ValueError: If it is neither a plain ResNet nor a plain ViT.
    """
    if is_resnet(backbone):
        return dict(backbone)
    if 'patch_embed.projection.weight' in backbone:
        return rename_keys(backbone, _VIT_RULES, 'plain ViT of mmpretrain')
    raise ValueError(
        'this conversion knows plain ResNets and ViTs; the backbone has the '
        f'keys {shorten(backbone)}'
    )


def describe_for_timm(
    backbone: Mapping[str, Tensor], meta: Mapping
) -> TimmModel:
    """Find the model of timm that has these weights.

    Args:
        backbone (Mapping[str, Tensor]): By mmpretrain's keys, without prefix.
        meta (Mapping): The meta of the checkpoint. A ViT's number of heads
            is not in its weights, it is read from the config there.

    Returns:
        TimmModel: Name, length of the features and arguments.

    Raises:
        ValueError: If timm has no such model.
    """
    if is_resnet(backbone):
        shape = read_resnet(backbone)
        if not shape.is_standard:
            raise ValueError(
                f'the backbone is a {shape}, which torchvision and timm do '
                'not have; their ResNets have a 7x7 stem and 64 channels'
            )
        width = max(
            tensor.shape[0]
            for key, tensor in backbone.items()
            if key.startswith('layer4.') and tensor.ndim == 4
        )
        return TimmModel(f'resnet{shape.depth}', width)
    return _describe_vit(timm_keys(backbone), meta)


def _describe_vit(weights: Mapping[str, Tensor], meta: Mapping) -> TimmModel:
    width = weights['patch_embed.proj.weight'].shape[0]
    name = _VIT_NAMES.get(width)
    if name is None:
        raise ValueError(
            f'the ViT is {width} wide, the known ones are '
            f'{shorten([*map(str, _VIT_NAMES)])}'
        )
    found = differences(_vit_shapes(width), weights)
    if found:
        raise ValueError(f'the ViT is no complete {name}: {shorten(found)}')
    heads = _number_of_heads(meta)
    args = {} if heads is None else {'num_heads': heads}
    return TimmModel(name, width, 'patch_embed.proj', 'head', args)


def _vit_shapes(width: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a ViT with 12 blocks, patches of 16 and images of 224."""
    shapes: dict[str, tuple[int, ...]] = {
        'cls_token': (1, 1, width),
        'pos_embed': (1, 197, width),
        'patch_embed.proj.weight': (width, 3, 16, 16),
        'patch_embed.proj.bias': (width,),
        **_layer('norm', width),
    }
    for block in range(12):
        parts = {
            **_layer('norm1', width),
            **_layer('attn.qkv', 3 * width, width),
            **_layer('attn.proj', width, width),
            **_layer('norm2', width),
            **_layer('mlp.fc1', 4 * width, width),
            **_layer('mlp.fc2', width, 4 * width),
        }
        shapes.update({f'blocks.{block}.{k}': v for k, v in parts.items()})
    return shapes


def _layer(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f'{name}.weight': shape, f'{name}.bias': shape[:1]}


def _number_of_heads(meta: Mapping) -> int | None:
    backbone = config_value(meta.get('cfg'), 'model', 'backbone') or {}
    arch = backbone.get('arch')
    if isinstance(arch, dict):
        return arch.get('num_heads')
    if not isinstance(arch, str):
        return None
    known = VisionTransformer.arch_zoo.get(arch, {})
    return _HEADS.get(arch, known.get('num_heads'))
