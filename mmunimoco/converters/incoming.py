"""Checkpoints of MoCo, UniMoCo and plain ResNets, for this project."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mmunimoco.utils.checkpoint import (
    compare_shapes,
    describe_prefixes,
    shorten,
    state_dict_of,
)
from mmunimoco.utils.normalization import (
    IMAGENET,
    normalization_of_checkpoint,
)

from .keys import Rule, part_of, rename_keys
from .resnet import RESNET_KEY, is_resnet, read_resnet

_QUEUES: list[Rule] = [(r'(queue|queue_ptr|label_queue)', r'head.\1')]
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
    # Its backbone.* and neck.* are second names of encoder_q.*.
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
# Prefix that every checkpoint of the source has.
_REQUIRED = dict(
    moco='encoder_q.',
    mmselfsup='encoder_q.0.',
    mmpretrain='encoder_k.module.',
    torchvision='conv1.weight',
    timm='conv1.weight',
)
# Those with any backbone; of the others only ResNets are known.
_ANY_BACKBONE = ('mmselfsup', 'mmpretrain')
# Names of torchvision and timm, with or without a tag.
_PLAIN_RESNET = r'(tv_)?resnet(18|34|50|101|152)(\..+)?'
# What resuming a run of mmpretrain's MoCo needs.
_TRAINING = ('optimizer', 'param_schedulers', 'message_hub')


def to_mmunimoco(checkpoint: Mapping, source: str = 'auto') -> dict:
    """Convert a checkpoint of another project into one of this project.

    The result has the keys of :class:`UniMoCo` for which the source has
    weights: ``backbone.*``, ``neck.*``, ``encoder_k.*``, ``head.queue``
    (K, C), ``head.label_queue`` (K,), -1 for unlabeled where the source has
    no labels, and ``head.queue_ptr``. A classifier becomes ``backbone.*`` and
    ``head.fc.*``.

    Training continues with ``load_from``. Optimizer, schedule and epoch are
    kept only from mmpretrain's MoCo; otherwise they start anew.

    Args:
        checkpoint (Mapping): A loaded checkpoint, or a bare state dict.
        source (str): One of :data:`SOURCES`, or ``'auto'`` to detect it from
            the keys. Defaults to 'auto'.

    Returns:
        dict: ``meta``, ``state_dict`` and ``message_hub``, in mmengine's
        form. ``meta['normalization']`` is set if it is known.

    Raises:
        ValueError: If the source is unknown or does not match, keys are
            missing, unknown or of a wrong shape, or the file names another
            architecture (``arch``).
    """
    state = state_dict_of(checkpoint, unwrap=True)
    source = _detect(state) if source == 'auto' else source
    if source not in _RULES:
        raise ValueError(
            f'there is no source {source!r}, only auto, {shorten(SOURCES)}'
        )
    if not any(key.startswith(_REQUIRED[source]) for key in state):
        raise ValueError(
            f"this is not a checkpoint of {source}: no key starts with '"
            f"{_REQUIRED[source]}'. The file holds {describe_prefixes(state)}."
        )
    if source == 'mmselfsup':
        state = _without_aliases(state)
    state = rename_keys(state, _RULES[source], f'checkpoint of {source}')
    if 'head.queue' in state:
        _transpose_queue(state)
    if part_of(state, 'encoder_k.module.'):
        # At step 0 the momentum encoder would be overwritten by the query's.
        state.setdefault('encoder_k.steps', torch.tensor(1))
    if source not in _ANY_BACKBONE:
        _check_architecture(checkpoint.get('arch'))
    _check(state, source)
    return _assemble(checkpoint, state, source)


def _detect(state: Mapping[str, Tensor]) -> str:
    if any(key.startswith('head.queue') for key in state):
        raise ValueError(
            'the file holds head.queue: it is a checkpoint of this project, '
            'there is nothing to convert'
        )
    # encoder_q.0. starts with encoder_q. too.
    for source in ('mmselfsup', 'moco', 'mmpretrain', 'torchvision'):
        if any(key.startswith(_REQUIRED[source]) for key in state):
            return source
    hint = ''
    if any(key.startswith('backbone.') for key in state):
        hint = (
            " A checkpoint with the backbone under 'backbone.' is used as it "
            'is, there is nothing to convert.'
        )
    raise ValueError(
        f'the file matches none of the known sources ({shorten(SOURCES)}); '
        f'it holds {describe_prefixes(state)}.{hint}'
    )


def _without_aliases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the second names in mmselfsup's checkpoints if both are equal."""
    kept = dict(state)
    for alias, name in (
        ('backbone.', 'encoder_q.0.'),
        ('neck.', 'encoder_q.1.'),
    ):
        for key, value in part_of(state, alias).items():
            other = state.get(name + key)
            if other is None or not torch.equal(value, other):
                raise ValueError(
                    f'{alias}{key} and {name}{key} should be the same tensor '
                    'in a checkpoint of mmselfsup, and differ'
                )
            del kept[alias + key]
    return kept


def _transpose_queue(state: dict[str, Tensor]) -> None:
    """Store keys as rows, (K, C), with a label queue, (K,) int64."""
    queue = state['head.queue']
    if queue.ndim != 2:
        raise ValueError(f'queue is {tuple(queue.shape)}, not (C, K)')
    state['head.queue'] = queue.T.contiguous()
    unlabeled = torch.full((queue.shape[1],), -1)
    labels = state.get('head.label_queue', unlabeled)
    state['head.label_queue'] = labels.to(torch.int64)


def _check_architecture(name: object) -> None:
    """Refuse relatives of ResNets, which may have the same weights.

    resnetaa50 of timm differs from resnet50 in pooling alone.
    """
    if isinstance(name, str) and not re.fullmatch(_PLAIN_RESNET, name):
        raise ValueError(
            f"the file says arch={name!r}; only torchvision's resnet18 to "
            'resnet152 compute the same as ResNet of mmpretrain'
        )


def _check(state: Mapping[str, Tensor], source: str) -> None:
    backbone = part_of(state, 'backbone.')
    if source not in _ANY_BACKBONE or is_resnet(backbone):
        read_resnet(backbone)
    if part_of(state, 'encoder_k.module.'):
        for part, index in (('backbone', 0), ('neck', 1)):
            _check_momentum_encoder(state, part, index)
    if source in ('torchvision', 'timm'):
        _check_classifier(state)
    else:
        _check_queues(part_of(state, 'head.'), part_of(state, 'neck.'))


def _check_momentum_encoder(
    state: Mapping[str, Tensor], part: str, index: int
) -> None:
    query = {k: v.shape for k, v in part_of(state, f'{part}.').items()}
    momentum = part_of(state, f'encoder_k.module.{index}.')
    problems = compare_shapes(query, momentum).problems()
    if problems:
        raise ValueError(
            f"the momentum encoder's {part} does not match the query's: "
            f'{shorten(problems)}'
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


def _check_queues(
    head: Mapping[str, Tensor], neck: Mapping[str, Tensor]
) -> None:
    """Check that queue, label queue, pointer and neck match each other."""
    if 'queue' not in head:
        if head:
            raise ValueError('there is a queue_ptr or label_queue, no queue')
        return
    length, channels = head['queue'].shape
    if head['label_queue'].shape != (length,):
        raise ValueError(
            f'label_queue is {tuple(head["label_queue"].shape)}, but the '
            f'queue has {length} keys'
        )
    pointer = head.get('queue_ptr')
    if pointer is None or pointer.numel() != 1:
        raise ValueError('the queue has no queue_ptr of one number')
    if not 0 <= int(pointer) < length:
        raise ValueError(
            f'queue_ptr is {int(pointer)}, outside the {length} keys'
        )
    linear = [value for value in neck.values() if value.ndim == 2]
    if linear and linear[-1].shape[0] != channels:
        raise ValueError(
            f'the queue holds keys of {channels} numbers (it is {channels} x '
            f'{length} in the file), but the projection head ends with '
            f'{linear[-1].shape[0]}'
        )


def _assemble(
    checkpoint: Mapping, state: dict[str, Tensor], source: str
) -> dict:
    meta = checkpoint.get('meta')
    old = dict(meta) if isinstance(meta, Mapping) else {}
    # mmengine can resume from this too: at epoch 0, with nothing logged yet.
    new: dict = {'epoch': 0, 'iter': 0}
    hub = dict(log_scalars={}, runtime_info={}, resumed_keys={})
    result = dict(meta=new, state_dict=state, message_hub=hub)
    if source == 'mmpretrain':
        start = {} if 'optimizer' in checkpoint else dict(new)
        new.update({**old, **start})
        result.update({k: checkpoint[k] for k in _TRAINING if k in checkpoint})
    if source not in _ANY_BACKBONE:
        new['normalization'] = dict(IMAGENET)
    elif known := normalization_of_checkpoint(checkpoint):
        new['normalization'] = known.to_meta()
    epoch = old.get('epoch', checkpoint.get('epoch'))
    new['converted_from'] = dict(source=source, epoch=epoch)
    return result
