"""What a config asks for, compared with the data and the machine.

``tools/misc/verify_setup.py`` lists what is found, ``PreflightHook`` warns of
it when training starts.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from torch import nn
from torch.nn import SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm

from mmunimoco.models.split_batch_norm import SplitBatchNorm
from mmunimoco.models.unimoco import UniMoCo

from ..schedules import schedulers
from .config_fields import arguments_of
from .memory import Advice, Sizes, check_memory, knn_memory, part

# Kinds of advice.
ADVICE = ('queue', 'learning rate', 'batch norm', 'memory', 'schedule')
# Schedulers that go down until their end; all else may end early.
_DECAYS = ('CosineAnnealing', 'CosineRestart', 'Poly')
# A length of their own, counted from their begin.
_LENGTHS = ('T_max', 'total_steps', 'periods')


def advise(cfg: Mapping, model: nn.Module, sizes: Sizes) -> list[Advice]:
    """Check a config against the data and the machine.

    Args:
        cfg (Mapping): The config.
        model (nn.Module): Its model, without wrapper.
        sizes (Sizes): Of the data, and number of processes.

    Returns:
        list[Advice]: What was found, empty if nothing was.
    """
    found = [
        check_queue(cfg, sizes.images),
        check_batch(cfg, sizes.processes),
        check_batch_norm(cfg, model, sizes.processes),
        check_last_batch(cfg, model, sizes),
        check_memory(knn_memory(cfg, sizes)),
        *check_schedule(cfg, sizes),
    ]
    return [advice for advice in found if advice is not None]


def check_queue(cfg: Mapping, images: int) -> Advice | None:
    """Older keys of an image are negatives of the image itself."""
    head = part(cfg, 'model', 'head')
    length = head.get('queue_len')
    if not length or length < images or head.get('exclude_own_keys'):
        return None
    return Advice(
        'queue',
        f'model.head.queue_len is {length} for {images} training images, so '
        'the queue holds older keys of every image, which are negatives of '
        'the image itself unless labels say otherwise',
        f'set model.head.queue_len={max(1, images // 4)} or so, well below '
        'the number of images, or model.head.exclude_own_keys=True',
    )


def check_batch(cfg: Mapping, processes: int) -> Advice | None:
    """A learning rate for another number of images per step.

    Schedules that count iterations are compared by ``PreflightHook``.
    """
    scale = part(cfg, 'auto_scale_lr')
    base, total = scale.get('base_batch_size'), images_per_step(cfg, processes)
    counts_epochs = part(cfg, 'train_cfg').get('max_epochs')
    if not base or not total or scale.get('enable') or not counts_epochs:
        return None
    if base / 2 < total < base * 2:
        return None
    lr = part(cfg, 'optim_wrapper', 'optimizer').get('lr')
    return Advice(
        'learning rate',
        f'an optimizer step sees {total} images ({processes} process(es)), '
        f'but the learning rate {lr} is for {base}',
        f'add --auto-scale-lr, which multiplies it by {total / base:.3g}, or '
        f'train on {base} images a step (processes x '
        'train_dataloader.batch_size)',
    )


def images_per_step(cfg: Mapping, processes: int) -> int:
    """Images of an optimizer step, 0 if a batch sampler decides."""
    loader = part(cfg, 'train_dataloader')
    return processes * (loader.get('batch_size') or 0) * accumulation(cfg)


def accumulation(cfg: Mapping) -> int:
    """Batches whose gradients are added up for an optimizer step."""
    return part(cfg, 'optim_wrapper').get('accumulative_counts') or 1


def check_accumulation(cfg: Mapping, scaled_by: Mapping) -> Advice | None:
    """Mmengine scales the learning rate to the images of one batch.

    Args:
        cfg (Mapping): The config.
        scaled_by (Mapping): ``auto_scale_lr`` of the runner.
    """
    counts, scale = accumulation(cfg), part(cfg, 'auto_scale_lr')
    base = scale.get('base_batch_size')
    if counts == 1 or not scale.get('enable'):
        return None
    if scaled_by.get('base_batch_size') != base:
        return None
    return Advice(
        'learning rate',
        f'{counts} batches are accumulated for an optimizer step, but the '
        'learning rate was scaled to the images of one batch',
        'train with tools/train.py of mmunimoco, which counts them, or set '
        f'auto_scale_lr.base_batch_size={base / counts:g}',
    )


def check_batch_norm(
    cfg: Mapping, model: nn.Module, processes: int
) -> Advice | None:
    """Statistics of a whole batch tell which key belongs to a query."""
    if not isinstance(model, UniMoCo):
        return None
    shared = 'queries and keys of a batch share statistics that reveal which '
    shared += 'key belongs to a query'
    # mmengine's sync_bn makes all of them synchronised.
    plain_is_safe = processes > 1 and not cfg.get('sync_bn')
    kind = SyncBatchNorm if plain_is_safe else _BatchNorm
    names = [
        name
        for name in ('backbone', 'neck')
        if _has_norm(getattr(model, name), kind)
    ]
    if not names:
        return None
    if processes > 1:
        return Advice(
            'batch norm',
            f'batch norm is synchronised over the processes, so {shared}',
            'use BN, whose keys are shuffled, and remove sync_bn',
        )
    batch_size = part(cfg, 'train_dataloader').get('batch_size') or 64
    splits = max(2, min(8, batch_size // 8))
    norm = f'model.{names[0]}.norm_cfg'
    fix = (
        f'set {norm}.type=SplitBatchNorm {norm}.num_splits={splits} (at least '
        'two images a split), or train on several GPUs'
    )
    network = getattr(model, names[0])
    known = arguments_of(type(network), MODELS) or ()
    is_split = any(isinstance(x, SplitBatchNorm) for x in network.modules())
    if 'norm_cfg' not in known or is_split:
        fix = (
            f'train on several GPUs, or use another model.{names[0]}: '
            f'norm_cfg does not set all batch norm of {type(network).__name__}'
        )
    return Advice(
        'batch norm',
        f'model.{" and model.".join(names)} has plain batch norm and there is '
        f'one process, so {shared}',
        fix,
    )


def check_last_batch(
    cfg: Mapping, model: nn.Module, sizes: Sizes
) -> Advice | None:
    """Batch norm has no statistics of too few images, and stops the run."""
    loader = part(cfg, 'train_dataloader')
    batch_size = loader.get('batch_size') or 1
    images = math.ceil(sizes.images / sizes.processes)
    last = images % batch_size
    network = getattr(model, 'backbone', None)
    if loader.get('drop_last') or not last or network is None:
        return None
    fault = _fault_of_batch(last, network, model)
    if fault is None:
        return None
    return Advice(
        'batch norm',
        f'{images} training images (of each process) in batches of '
        f'{batch_size} leave {last} for the last batch, {fault}',
        'set train_dataloader.drop_last=True, which leaves out other images '
        'in each epoch, or another train_dataloader.batch_size',
    )


def _fault_of_batch(
    images: int, network: nn.Module, model: nn.Module
) -> str | None:
    """Why so few images would stop the run."""
    if getattr(network, 'norm_eval', False):  # takes no statistics
        return None
    splits = max(
        (
            module.num_splits
            for module in network.modules()
            if isinstance(module, SplitBatchNorm)
        ),
        default=1,
    )
    if images < splits:
        return (
            f'at which SplitBatchNorm with num_splits={splits} stops the run'
        )
    # How many values a channel has at the end of the backbone depends on the
    # size of the images, 1 for 32 pixels, and is not known here.
    is_classifier = isinstance(model, ImageClassifier)
    if images > 1 or not is_classifier or not _has_norm(network, _BatchNorm):
        return None
    return (
        'at which batch norm stops the run if its feature map is a single '
        'value (a ResNet on images of 32 pixels)'
    )


def _has_norm(network: nn.Module, kind: type) -> bool:
    """Whether a network has a batch norm that is not split, and trains it."""
    return not getattr(network, 'norm_eval', False) and any(
        isinstance(module, kind) and not isinstance(module, SplitBatchNorm)
        for module in network.modules()
    )


def check_schedule(cfg: Mapping, sizes: Sizes) -> Iterator[Advice]:
    """Schedules that end before the run, or milestones that it never meets."""
    if 'ExtendScheduleHook' in str(cfg.get('custom_hooks')):  # stretches it
        return
    found = {
        field: scheduler
        for field, scheduler in schedulers(cfg).items()
        if isinstance(scheduler, Mapping) and 'type' in scheduler
    }
    for field, scheduler in found.items():
        by_epoch = scheduler.get('by_epoch', True)
        length = run_length(cfg, sizes, by_epoch)
        if length is None:
            continue
        unit = 'epochs' if by_epoch else 'iterations'
        run = f'the run has {length} {unit}'
        for name, value in _late(scheduler, length):
            yield Advice(
                'schedule',
                f'{field}.{name} is {value}, but {run}, so this is not '
                'reached',
                f'set {field}.{name} below {length}, or train longer',
            )
        name, stop = _own_end(scheduler)
        end = min(length, scheduler.get('end', length))
        if name == 'total_steps' and stop < end:
            yield Advice(
                'schedule',
                f'{field}.total_steps is {scheduler[name]}, but {run}, which '
                f'{scheduler["type"]} would stop with an error',
                f'leave out {field}.total_steps, so that it is as long as the '
                'run',
                stops=True,
            )
        stop = _stop(scheduler)
        starts = [other.get('begin', 0) for other in found.values()]
        if stop is not None and stop < min(
            length, *(x for x in starts if x >= stop), length
        ):
            yield Advice(
                'schedule',
                f'{field} ({scheduler["type"]}) comes to its end after {stop} '
                f'{unit}, but {run}: the learning rate then rises again, or '
                'stays at its lowest',
                f'let {field} end at {length}, or leave out its T_max or '
                'end, so that it ends with the run',
            )


def run_length(cfg: Mapping, sizes: Sizes, by_epoch: bool) -> int | None:
    """Length of the run in epochs or in iterations; None if unknown."""
    loop = part(cfg, 'train_cfg')
    epochs, iterations = loop.get('max_epochs'), loop.get('max_iters')
    if by_epoch:
        return epochs
    loader = part(cfg, 'train_dataloader')
    batch_size = loader.get('batch_size')
    if epochs and batch_size:
        batches = sizes.images / sizes.processes / batch_size
        whole = math.floor if loader.get('drop_last') else math.ceil
        return epochs * max(1, whole(batches))
    return iterations


def _late(scheduler: Mapping, length: int) -> Iterator[tuple[str, Any]]:
    """Fields of a scheduler that the run never reaches, and their values."""
    milestones = list(scheduler.get('milestones') or ())
    if any(x >= length for x in milestones):
        yield 'milestones', milestones
    begin, end = scheduler.get('begin', 0), scheduler.get('end')
    if begin >= length:
        yield 'begin', begin
    elif end is not None and length < end < float('inf'):
        yield 'end', end
    else:
        name, stop = _own_end(scheduler)
        if stop > length:
            yield name, scheduler[name]


def _own_end(scheduler: Mapping) -> tuple[str, int]:
    """Field of its own length, and when it ends by it; '' if it has none."""
    begin = scheduler.get('begin', 0)
    for name in _LENGTHS:
        value = scheduler.get(name)
        if value:
            several = isinstance(value, Sequence)  # one after the other
            return name, begin + (sum(value) if several else value)
    return '', begin


def _stop(scheduler: Mapping) -> int | None:
    """When a decaying scheduler comes to its end, if it says so."""
    if not str(scheduler['type']).rpartition('.')[2].startswith(_DECAYS):
        return None
    name, stop = _own_end(scheduler)
    ends = [scheduler.get('end'), stop if name else None]
    known = [x for x in ends if x is not None and 0 <= x < float('inf')]
    return min(known, default=None)


def check_topk(cfg: Mapping, num_classes: int) -> list[Advice]:
    """Top-k accuracies that :func:`fit_topk` will leave out.

    Args:
        cfg (Mapping): The config.
        num_classes (int): Classes of validation, 0 if unknown.
    """
    metrics = cfg.get('val_evaluator') or []
    found = []
    for metric in [metrics] if isinstance(metrics, Mapping) else metrics:
        topk = metric.get('topk') or ()
        topk = (topk,) if isinstance(topk, int) else tuple(topk)
        kept = tuple(k for k in topk if k <= num_classes) or (1,)
        if num_classes and max(topk, default=1) > num_classes:
            found.append(
                Advice(
                    'top-k',
                    f'val_evaluator has topk={topk}, but there are '
                    f'{num_classes} classes; only {kept} is computed',
                    f'set val_evaluator.topk and test_evaluator.topk to {kept}'
                    ', or leave it',
                )
            )
    return found
