"""Checkpoints of MoCo, UniMoCo and plain ResNets, for this project."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mmunimoco.utils.checkpoint import (
    describe_prefixes,
    shorten,
    state_dict_of,
)

from .metadata import IMAGENET, normalization_of
from .queues import check_queues, to_head
from .renaming import Rule, differences, part_of, rename_keys
from .resnet import RESNET_KEY, is_resnet, read_resnet

_QUEUES: list[Rule] = [
    (r'(queue|queue_ptr|label_queue)', r'head.\1'),
]
_RULES: dict[str, list[Rule]] = {
    # facebookresearch/moco v1 (one linear layer) and v2 (two), dddzg/unimoco.
    'moco': [
        (rf'encoder_q\.({RESNET_KEY})', r'backbone.\1'),
        (r'encoder_q\.fc\.(weight|bias)', r'neck.fc.\1'),
        (r'encoder_q\.fc\.([02]\.(?:weight|bias))', r'neck.mlp.\1'),
        (rf'encoder_k\.({RESNET_KEY})', r'encoder_k.module.0.\1'),
        (r'encoder_k\.fc\.(weight|bias)', r'encoder_k.module.1.fc.\1'),
        (
            r'encoder_k\.fc\.([02]\.(?:weight|bias))',
            r'encoder_k.module.1.mlp.\1',
        ),
        *_QUEUES,
    ],
    # There backbone and neck are second names of encoder_q.
    'mmselfsup': [
        (r'encoder_q\.0\.(.+)', r'backbone.\1'),
        (r'encoder_q\.1\.(.+)', r'neck.\1'),
        (r'encoder_k\.([01]\..+)', r'encoder_k.module.\1'),
        *_QUEUES,
    ],
    'mmpretrain': [
        (r'((?:backbone|neck)\..+)', r'\1'),
        (r'(encoder_k\.(?:module\.[01]\..+|steps))', r'\1'),
        *_QUEUES,
    ],
    'torchvision': [
        (rf'({RESNET_KEY})', r'backbone.\1'),
        (r'fc\.(weight|bias)', r'head.fc.\1'),
    ],
}
_RULES['timm'] = _RULES['torchvision']
SOURCES = tuple(_RULES)
_ALIASES = {'backbone.': 'encoder_q.0.', 'neck.': 'encoder_q.1.'}
# What a checkpoint of the source cannot be without.
_NEEDED = dict(
    moco='encoder_q.',
    mmselfsup='encoder_q.0.',
    mmpretrain='encoder_k.module.',
    torchvision='conv1.weight',
    timm='conv1.weight',
)
# These may hold any backbone; of the others ResNets alone are known.
_ANY_BACKBONE = ('mmselfsup', 'mmpretrain')
# With these a run of mmpretrain's MoCo is resumed as it stood.
_TRAINING = ('optimizer', 'param_schedulers', 'message_hub')


def to_mmunimoco(checkpoint: Mapping, source: str = 'auto') -> dict:
    """Convert a checkpoint of another project into one of this project.

    The result has the keys of :class:`UniMoCo`, as far as the source has
    them: ``backbone.*``, ``neck.*``, ``encoder_k.*``, ``head.queue`` (K, C),
    ``head.label_queue`` (K,), which is -1 for unlabeled where the source has
    none, and ``head.queue_ptr``. Of a classifier it has ``backbone.*`` and
    ``head.fc.*``.

    Training goes on from it with ``load_from``. Optimizer, schedule and
    epoch are carried over from mmpretrain's MoCo alone; for the others they
    begin anew.

    Args:
        checkpoint (Mapping): A checkpoint that was read, or a state dict.
        source (str): One of :data:`SOURCES`, or ``'auto'`` to tell it from
            the keys. Defaults to 'auto'.

    Returns:
        dict: ``meta``, ``state_dict`` and ``message_hub``, in mmengine's
        form. ``meta['normalization']`` is set where it is known.

    Raises:
        ValueError: If the source is not known or is another one, or keys are
            missing, unknown or of a wrong shape.
    """
    state = state_dict_of(checkpoint, unwrap=True)
    source = _detect(state) if source == 'auto' else source
    if source not in _RULES:
        raise ValueError(
            f'there is no source {source!r}, only auto, {shorten(SOURCES)}'
        )
    if not any(key.startswith(_NEEDED[source]) for key in state):
        raise ValueError(
            f"this is no checkpoint of {source}: no key starts with '"
            f"{_NEEDED[source]}'. The file holds {describe_prefixes(state)}."
        )
    if source == 'mmselfsup':
        state = _without_aliases(state)
    new = rename_keys(state, _RULES[source], f'checkpoint of {source}')
    new = to_head(new)
    _add_steps(new)
    _check(new, source)
    return _assemble(checkpoint, new, source)


def _detect(state: Mapping[str, Tensor]) -> str:
    if any(key.startswith('head.queue') for key in state):
        raise ValueError(
            'the file holds head.queue: it is a checkpoint of this project, '
            'there is nothing to convert'
        )
    # encoder_q.0. starts with encoder_q. too.
    order = ('mmselfsup', 'moco', 'mmpretrain', 'torchvision')
    for source in order:
        if any(key.startswith(_NEEDED[source]) for key in state):
            return source
    hint = ''
    if any(key.startswith('backbone.') for key in state):
        hint = (
            " A checkpoint whose backbone is under 'backbone.' is used as it "
            'is, there is nothing to convert.'
        )
    raise ValueError(
        f'the file is of none of the known sources ({shorten(SOURCES)}); it '
        f'holds {describe_prefixes(state)}.{hint}'
    )


def _without_aliases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the second names that mmselfsup stores, once they agree."""
    kept = dict(state)
    for alias, name in _ALIASES.items():
        for key, value in part_of(state, alias).items():
            other = state.get(name + key)
            if other is None or not torch.equal(value, other):
                raise ValueError(
                    f'{alias}{key} and {name}{key} should be the same tensor '
                    'in a checkpoint of mmselfsup, and differ'
                )
            del kept[alias + key]
    return kept


def _add_steps(state: dict[str, Tensor]) -> None:
    # At step 0 the momentum encoder would be overwritten by the query's.
    if part_of(state, 'encoder_k.module.'):
        state.setdefault('encoder_k.steps', torch.tensor(1))


def _check(state: Mapping[str, Tensor], source: str) -> None:
    backbone = part_of(state, 'backbone.')
    if source not in _ANY_BACKBONE or is_resnet(backbone):
        read_resnet(backbone)
    for part, momentum in (('backbone.', '0.'), ('neck.', '1.')):
        _check_twin(state, part, f'encoder_k.module.{momentum}')
    if source in ('torchvision', 'timm'):
        _check_classifier(state)
    else:
        check_queues(state)


def _check_twin(state: Mapping[str, Tensor], part: str, twin: str) -> None:
    momentum = part_of(state, twin)
    if not part_of(state, 'encoder_k.module.'):
        return
    query = {k: v.shape for k, v in part_of(state, part).items()}
    found = differences(query, momentum)
    if found:
        raise ValueError(
            f"the momentum encoder's {part[:-1]} is not that of the query: "
            f'{shorten(found)}'
        )


def _check_classifier(state: Mapping[str, Tensor]) -> None:
    last = [k for k in state if k.startswith('backbone.layer4.')]
    width = max(state[k].shape[0] for k in last if state[k].ndim == 4)
    weight = state.get('head.fc.weight')
    if weight is not None and weight.shape[1:] != (width,):
        raise ValueError(
            f'fc.weight is {tuple(weight.shape)}, but the backbone has '
            f'{width} channels'
        )


def _assemble(
    checkpoint: Mapping, state: dict[str, Tensor], source: str
) -> dict:
    meta = checkpoint.get('meta')
    old = dict(meta) if isinstance(meta, Mapping) else {}
    # mmengine resumes from this too: at epoch 0, with nothing logged yet.
    new: dict = {'epoch': 0, 'iter': 0}
    hub = dict(log_scalars={}, runtime_info={}, resumed_keys={})
    result = dict(meta=new, state_dict=state, message_hub=hub)
    if source == 'mmpretrain':
        begin_anew = {} if 'optimizer' in checkpoint else dict(new)
        new.update({**old, **begin_anew})
        result.update({k: checkpoint[k] for k in _TRAINING if k in checkpoint})
    known = IMAGENET if source not in _ANY_BACKBONE else normalization_of(old)
    if known is not None:
        new['normalization'] = dict(known)
    epoch = old.get('epoch', checkpoint.get('epoch'))
    new['converted_from'] = dict(source=source, epoch=epoch)
    return result
