"""Shipped configs made small enough to run, and checkpoints to start from."""

from contextlib import contextmanager

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS


def dicts_in(node, _seen=None):
    """Yield every dict of nested dicts and lists once, the outer ones first.

    A dict may be changed when it is yielded; its new values are visited.
    """
    seen = {} if _seen is None else _seen
    if id(node) in seen:
        return
    seen[id(node)] = node  # a reference, so that the id is not used again
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from dicts_in(item, seen)


def flatten(node, prefix=''):
    """Return {dotted key: leaf} of nested dicts and lists."""
    if isinstance(node, dict):
        # mmengine adds the scope where a base of another package is used.
        items = [(k, v) for k, v in node.items() if k != '_scope_']
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    else:
        return {prefix[:-1]: node}
    flat = {}
    for key, value in items:
        flat |= flatten(value, f'{prefix}{key}.')
    return flat


def differing_keys(one, other):
    """Return the dotted keys in which two nested dicts differ."""
    one, other = flatten(one), flatten(other)
    keys = one.keys() | other.keys()
    return {key for key in keys if one.get(key, ...) != other.get(key, ...)}


def shrink(cfg, by_type, **loader):
    """Update, in place, the dicts of a config by their ``type``.

    Args:
        cfg (Config): The config.
        by_type (dict[str, dict]): New values for the dicts of a type.
        **loader: New values for the data loaders, which use no workers.
    """
    for node in dicts_in(cfg._cfg_dict):
        kind = str(node.get('type')).rpartition('.')[2]
        node.update(by_type.get(kind, {}))
        if 'num_workers' in node:
            node.update(num_workers=0, persistent_workers=False, **loader)


def divide_by_8(cfg, keys):
    """Divide, in place, sizes and widths under the given keys by 8."""
    for node in dicts_in(cfg):
        for key in keys & node.keys():
            node[key] = _eighth(node[key])


def _eighth(sizes):
    if isinstance(sizes, (list, tuple)):
        return type(sizes)(map(_eighth, sizes))
    return sizes // 8


@contextmanager
def skip_init():
    """Build models at their real size without drawing weights.

    (mmpretrain's ResNet cannot be built on the meta device.)
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ('kaiming_uniform_', 'uniform_', 'normal_'):
            patch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)
        yield


def save_pretrained(path, backbone):
    """Save a backbone as pre-training does, beside another module.

    Args:
        path (Path): The file to write.
        backbone (dict): Config of a backbone of mmpretrain.

    Returns:
        dict[str, Tensor]: The state dict of the backbone. Norms and embeddings
        are not those of a fresh network.
    """
    torch.manual_seed(1)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        module = MODELS.build({**backbone, 'init_cfg': None})
        module.init_weights()
    state = module.state_dict()
    for key, value in state.items():
        if key.endswith('num_batches_tracked'):
            value.fill_(7)
        elif key in ('cls_token', 'pos_embed'):
            value.normal_(std=0.02)
        elif value.ndim == 1 and not key.endswith('bias'):
            value.uniform_(0.5, 1.5)
    stored = {f'backbone.{key}': value for key, value in state.items()}
    stored['neck.fc.weight'] = torch.rand(2)
    torch.save(dict(state_dict=stored), path)
    return state


def differing_tensors(one, other):
    """Return the keys under which two state dicts differ."""
    assert one.keys() == other.keys()
    return {
        key
        for key, value in one.items()
        if value.shape != other[key].shape
        or not torch.equal(value, other[key])
    }
