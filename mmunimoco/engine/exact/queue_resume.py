"""Fit the queues of a checkpoint to the head that loads them."""

import logging
from collections.abc import Mapping, Sequence

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner
from mmpretrain.registry import HOOKS
from torch import Tensor, nn

from mmunimoco.models.unimoco_head import UniMoCoHead
from mmunimoco.utils.checkpoint import bare_model, shorten

_QUEUES = ('queue', 'label_queue', 'index_queue', 'propagated_queue')


@HOOKS.register_module()
class QueueResumeHook(Hook):
    """Fit the queues of a checkpoint to ``UniMoCoHead``, with a warning.

    For ``load_from`` and ``--resume``. With another ``queue_len`` the newest
    keys are kept, or all of them plus random unlabeled keys, which are
    overwritten first. A checkpoint of mmpretrain's MoCo is converted; its
    label queue starts unlabeled. Queues and the count of steps of an option
    that the run did not have before are added. mmengine would drop such
    queues with a line in the log. Those in the state of ``EMAHook`` are
    fitted too.

    A run that only starts from weights (``load_from``) counts its steps anew:
    schedules of the momentum, and warm-ups, begin at their beginning. The key
    encoder of the checkpoint is kept, and so are the labels of its keys if the
    data sets name the same classes in the same order; else they are dropped.
    """

    priority = 'HIGHEST'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Change the checkpoint in place before the model loads it.

        Raises:
            ValueError: If its keys have another dimension, or its labels
                another form.
        """
        head = getattr(bare_model(runner.model), 'head', None)
        if not isinstance(head, UniMoCoHead):
            return
        _convert_moco(checkpoint)
        # EMAHook keeps the weights that are trained in its own state, and
        # exchanges both when it has loaded them.
        states = [checkpoint.get('state_dict', checkpoint)]
        states.append(checkpoint.get('ema_state_dict', {}))
        # Built for training only; a test counts nothing.
        loop = getattr(runner, '_train_loop', None)
        if isinstance(loop, BaseLoop) and not runner._resume:
            # EMAHook takes its weights from these, too.
            _count_anew(states[0], head)
            _drop_labels(
                states,
                (checkpoint.get('meta') or {}).get('dataset_meta'),
                getattr(loop.dataloader.dataset, 'metainfo', None),
            )
        changes = {_fit_state(state, head): None for state in states}
        for change in filter(None, changes):
            print_log(
                f'The queues of the checkpoint: {change}.',
                logger='current',
                level=logging.WARNING,
            )


def _count_anew(state: dict[str, Tensor], head: nn.Module) -> None:
    """Set the counts of steps to those of a run that begins, in place."""
    steps = state.get('encoder_k.steps')
    if steps is None:
        return
    if steps > 1:
        print_log(
            f'The checkpoint has trained for {int(steps)} steps; this run '
            'counts its own from 0.',
            logger='current',
        )
    # At 0 the first update would copy the query encoder.
    state['encoder_k.steps'] = steps.clamp(max=1)
    if hasattr(head, 'steps'):
        state['head.steps'] = torch.zeros_like(steps)


def _drop_labels(
    states: list[dict], before: Mapping | None, now: Mapping | None
) -> None:
    """Make the keys unlabeled, if their class ids may mean other classes."""
    old, new = ((meta or {}).get('classes') for meta in (before, now))
    if old is not None and new is not None and list(old) == list(new):
        return
    dropped = False
    for state in states:
        for name in _QUEUES[1:]:
            for key in (f'head.{name}', f'module.head.{name}'):
                if key not in state:
                    continue
                dropped |= bool(_is_labeled(state[key]).any())
                state[key] = _unknown(state[key], len(state[key]))
    if dropped:
        print_log(
            'The labels of its keys are not kept: the checkpoint is of the '
            f'classes {_shown(old)}, this run is of {_shown(new)}.',
            logger='current',
            level=logging.WARNING,
        )


def _shown(classes: Sequence[str] | None) -> str:
    if classes is None:
        return '(no names)'
    return f'({shorten([*map(str, classes)], 4)})'


def _fit_state(state: dict[str, Tensor], head: UniMoCoHead) -> str:
    """Fit the queues of a state in place; describe what was changed."""
    model = 'module.' * ('module.head.queue' in state)
    prefix = f'{model}head.'
    if f'{prefix}queue' not in state:
        return ''
    own = dict(head.named_buffers(recurse=False))
    stored = {
        name: state[prefix + name]
        for name in (*_QUEUES, 'queue_ptr')
        if prefix + name in state
    }
    fitted, notes = fit_queues(stored, own)
    for name, value in fitted.items():
        state[prefix + name] = value
    steps = state.get(f'{model}encoder_k.steps')
    if 'steps' in own and f'{prefix}steps' not in state and steps is not None:
        # An option that counts is new: both count the batches of the run.
        state[f'{prefix}steps'] = steps.clone()
        notes.append(f'there is no count of steps, it starts at {int(steps)}')
    return '; '.join(notes)


def fit_queues(
    stored: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Fit queues to another length.

    Args:
        stored (Mapping[str, Tensor]): ``queue`` (L, C), ``queue_ptr`` (1,),
            and, if the checkpoint has them, ``label_queue``,
            ``index_queue`` and ``propagated_queue`` with L rows.
        own (Mapping[str, Tensor]): The same of a new head, with K rows.

    Returns:
        tuple[dict[str, Tensor], list[str]]: The head's buffers, with K rows,
        and a description of each change.

    Raises:
        ValueError: If the rows have another shape than the head's.
    """
    length, wanted = len(stored['queue']), len(own['queue'])
    rows, notes = dict(stored), []
    for name in _QUEUES:
        if name in own and name not in rows:
            rows[name] = _unknown(own[name], length)
            notes.append(f'there is no {name}, all its keys are unknown')
    if not _is_labeled(rows['label_queue']).any():
        notes.append('no key has a label yet, those of this run will')
    for name in (name for name in _QUEUES if name in own):
        if rows[name].shape[1:] != own[name].shape[1:]:
            raise ValueError(
                f'head.{name} of the checkpoint has rows of shape '
                f'{tuple(rows[name].shape[1:])}, this model '
                f'{tuple(own[name].shape[1:])}: use its model.head.feat_dim, '
                'num_classes and multi_label'
            )
    if length == wanted:
        return rows, notes
    pointer = int(rows.pop('queue_ptr'))
    kept = min(length, wanted)
    fitted = dict(queue_ptr=torch.zeros_like(own['queue_ptr'], device='cpu'))
    for name, value in rows.items():
        if name not in own:
            continue
        # The oldest first: with a pointer of 0 they are overwritten first.
        newest = value.roll(-pointer, dims=0)[length - kept :]
        blank = own[name][: wanted - kept].to(newest)
        if name != 'queue':
            blank = _unknown(blank, wanted - kept)
        fitted[name] = torch.cat([blank, newest])
    change = (
        f'its newest {wanted} of {length} keys are kept'
        if wanted < length
        else f'its {length} keys are kept, random unlabeled ones fill them up '
        f'to {wanted}'
    )
    return fitted, [change, *notes]


def _is_labeled(labels: Tensor) -> Tensor:
    return labels.any(dim=1) if labels.ndim == 2 else labels >= 0


def _unknown(like: Tensor, rows: int) -> Tensor:
    """Rows without label or index: -1, or an empty multi-hot label."""
    value = 0 if like.dtype == torch.bool else -1
    return like.new_full((rows, *like.shape[1:]), value, device='cpu')


def _convert_moco(checkpoint: dict) -> None:
    """Convert a checkpoint of mmpretrain's MoCo in place."""
    state = checkpoint.get('state_dict', {})
    if not _is_moco(state):
        return
    # Only needed here: keep `import mmunimoco` light.
    from mmunimoco.converters import to_mmunimoco
    from mmunimoco.converters.keys import part_of

    converted = to_mmunimoco(checkpoint, 'mmpretrain')['state_dict']
    checkpoint['state_dict'] = converted
    print_log(
        "The checkpoint is of mmpretrain's MoCo: it continues as UniMoCo.",
        logger='current',
    )
    prefix = 'module.'
    averaged = part_of(checkpoint.get('ema_state_dict', {}), prefix)
    if _is_moco(averaged):
        converted = to_mmunimoco(dict(state_dict=averaged), 'mmpretrain')
        checkpoint['ema_state_dict'] = dict(
            steps=checkpoint['ema_state_dict']['steps'],
            **{prefix + k: v for k, v in converted['state_dict'].items()},
        )


def _is_moco(state: Mapping[str, Tensor]) -> bool:
    return 'queue' in state and any(k.startswith('encoder_k.') for k in state)
