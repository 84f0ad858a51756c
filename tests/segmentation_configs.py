"""The segmentation configs, and how their tests make them small.

Reduced are: crops and scales (an eighth), width of backbones and heads (an
eighth), batch, workers, steps. The depth, the kinds of layers, the optimisers
and the pipelines stay the configs' own.
"""

import copy
from functools import cache
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / 'configs/benchmarks/mmsegmentation'
PATHS = sorted(FOLDER.glob('[!_]*/*.py'))
VOC = FOLDER / 'voc12aug/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py'
ADE = FOLDER / 'ade20k/upernet_r50_4xb4-80k_ade20k-512x512.py'
CITYSCAPES = FOLDER / 'cityscapes/upernet_r50_4xb2-40k_cityscapes-512x1024.py'
VIT = FOLDER / 'ade20k/vit_vit-s16_mln_upernet_8xb2-80k_ade20k-512x512.py'

SMALL_RESNET = dict(base_channels=8, stem_channels=8)
SMALL_VIT = dict(
    arch=dict(
        embed_dims=48, num_layers=12, num_heads=12, feedforward_channels=96
    )
)
SIZES = {'scale', 'crop_size', 'size', 'img_size', 'stride'}
WIDTHS = {'in_channels', 'out_channels', 'channels'}
WIDTHS |= {'c1_in_channels', 'c1_channels'}


@cache
def _read(path: Path) -> Config:
    return Config.fromfile(path)


def load(path: Path) -> Config:
    """A config as it is in the file, to be changed at will.

    Reading one takes seconds, because mmengine looks through all metafiles of
    the host; so each is read once.
    """
    return copy.deepcopy(_read(path))


def load_pretraining(vit: bool) -> Config:
    """The config that pre-trains such a backbone."""
    name = 'resnet50_8xb32-coslr-200e'
    if vit:
        name = 'vit-small-p16_8xb128-coslr-300e'
    return load(ROOT / f'configs/unimoco/unimoco_{name}_in1k.py')


def make_small(cfg: Config) -> None:
    """Make a config cheap to try, in place: two steps, one validation."""
    _shrink(cfg._cfg_dict, {})
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.default_hooks.checkpoint.interval = -1
    cfg.randomness = dict(seed=0)


def _shrink(node, seen):
    """Shrink each node once: some are in several places."""
    if id(node) in seen:
        return
    seen[id(node)] = node
    if isinstance(node, (list, tuple)):
        for item in node:
            _shrink(item, seen)
    if not isinstance(node, dict):
        return
    kind = str(node.get('type')).split('.')[-1]
    if kind == 'ResNet':
        node.update(SMALL_RESNET)
    elif kind == 'VisionTransformer':
        node.update(copy.deepcopy(SMALL_VIT))
    elif kind == 'LinearLR':
        # In warm-up, weights move by less than float32 can tell.
        node.update(start_factor=1.0)
    for key in (SIZES | WIDTHS) & node.keys():
        node[key] = _eighth(node[key])
    if 'num_workers' in node:
        node.update(num_workers=0, persistent_workers=False)
    for item in list(node.values()):
        _shrink(item, seen)


def _eighth(sizes):
    if isinstance(sizes, (list, tuple)):
        return type(sizes)(map(_eighth, sizes))
    return sizes // 8


def write_checkpoint(file: Path, vit: bool) -> None:
    """Write a small backbone as pre-training would, with more than it."""
    torch.manual_seed(1)
    backbone = load_pretraining(vit).model.backbone
    # Two patches a side; the segmentor has four.
    backbone.update({**SMALL_VIT, 'img_size': 32} if vit else SMALL_RESNET)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        module = MODELS.build(backbone)
    state = {f'backbone.{k}': v for k, v in module.state_dict().items()}
    for key, value in state.items():
        # What is constant in a fresh network.
        if key.endswith(('running_mean', 'running_var')):
            value.uniform_(0.5, 1.5)
        elif key.endswith(('cls_token', 'pos_embed')):
            value.normal_(std=0.02)
    torch.save(dict(state_dict={**state, 'neck.a': torch.rand(2)}), file)
