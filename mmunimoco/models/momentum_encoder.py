"""The momentum encoder: an exponential moving average of an encoder."""

import math
from collections import defaultdict
from copy import deepcopy
from numbers import Integral, Real
from typing import Any

import torch
from mmengine.logging import MessageHub
from torch import Tensor, nn


def _checked_momentum(name: str, value: Any) -> float:
    """Return ``value`` as float, or say which config field is wrong."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(
            f'`{name}` must be a number between 0 and 1, got {value!r} '
            f'(model.{name} of the config).'
        )
    if not 0 <= value <= 1:
        raise ValueError(
            f'`{name}` must lie in [0, 1], got {value} (model.{name} of the '
            'config). It is the share of the query encoder that enters the '
            'key encoder at each step: the published m = 0.999 is '
            f'`{name}=0.001`.'
        )
    return float(value)


def _checked_warmup(steps: Any, start: Any) -> int:
    """Return the length of the warm-up, or say which field is wrong."""
    if not isinstance(steps, Integral) or isinstance(steps, bool) or steps < 0:
        raise ValueError(
            f'`momentum_warmup` must be an integer >= 0, got {steps!r} '
            '(model.momentum_warmup of the config).'
        )
    if (start is None) == bool(steps):
        raise ValueError(
            '`start_momentum` and `momentum_warmup` need each other, got '
            f'{start!r} and {steps!r}: set both model.start_momentum and '
            'model.momentum_warmup, or neither.'
        )
    return int(steps)


class MomentumEncoder(nn.Module):
    r"""Exponential moving average of an encoder (He et al., MoCo, eq. 2).

    .. math:: \theta_k \leftarrow (1 - \mu)\,\theta_k + \mu\,\theta_q

    with :math:`\mu` = ``momentum`` in mmengine's convention (the published
    :math:`m` is :math:`1 - \mu`). With ``end_momentum``, :math:`\mu` follows
    half a cosine over the run (BYOL, Grill et al. 2020, section 3.2; MoCo v3,
    ``adjust_moco_momentum``):

    .. math::
        \mu_t = \mu_{end} + (\mu_{start} - \mu_{end})
                \cdot \tfrac{1}{2}\left(\cos\frac{\pi t}{T} + 1\right)

    where :math:`t` is the number of updates done before this one (clamped to
    :math:`T`) and :math:`T` the ``max_iters`` of the run. With
    ``momentum_warmup`` = W, the first W updates go linearly from
    ``start_momentum`` to that value: keys that follow faster at first.

    Only parameters are averaged. Buffers are not: the key encoder sees other
    images than the query encoder and keeps its own BN statistics.

    The first update copies parameters *and* buffers, because weights are
    initialised, or a pre-trained backbone is loaded, after this module was
    built. The host reads the step counter once and then counts itself, so an
    update does not wait for the device.

    Checkpoint keys (``module.*``, ``steps``) are those of mmengine's
    ``ExponentialMovingAverage``: checkpoints of mmpretrain's MoCo load.

    Args:
        module (nn.Module): The query encoder, deep-copied here. The copy
            never requires gradients.
        momentum (float): Share of the query encoder taken at each update,
            in [0, 1]. Defaults to 0.001.
        end_momentum (float, optional): Where the cosine ends, in [0, 1].
            None keeps ``momentum`` constant. Defaults to None.
        start_momentum (float, optional): Where the warm-up starts, in [0, 1].
            Needs ``momentum_warmup``. Defaults to None.
        momentum_warmup (int): Updates until ``momentum`` is reached.
            Defaults to 0.

    Attributes:
        module (nn.Module): The averaged encoder.
        steps (Tensor): int64 scalar, the number of updates so far.

    Raises:
        TypeError: If a momentum is not a number.
        ValueError: If a momentum is outside [0, 1], or only one of
            ``start_momentum`` and ``momentum_warmup`` is given.
    """

    steps: Tensor

    def __init__(
        self,
        module: nn.Module,
        momentum: float = 0.001,
        end_momentum: float | None = None,
        start_momentum: float | None = None,
        momentum_warmup: int = 0,
    ) -> None:
        super().__init__()
        self.momentum = _checked_momentum('momentum', momentum)
        self.end_momentum, self.start_momentum = (
            None if value is None else _checked_momentum(name, value)
            for name, value in dict(
                end_momentum=end_momentum, start_momentum=start_momentum
            ).items()
        )
        self.momentum_warmup = _checked_warmup(momentum_warmup, start_momentum)
        self.module = deepcopy(module).requires_grad_(False)
        self.register_buffer('steps', torch.tensor(0, dtype=torch.long))
        # Copy of `steps` on the host; None until it is read.
        self._host_steps: int | None = None

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the averaged encoder without gradient."""
        return self.module(*args, **kwargs)

    @torch.no_grad()
    def update(self, source: nn.Module) -> None:
        """Move one step towards ``source``.

        Args:
            source (nn.Module): The query encoder, of the structure that this
                module was built from. Parameters are matched by order.

        Raises:
            ValueError: If the parameters (at the first update also the
                buffers) of ``source`` differ in number or shape from those
                this module was built from, or if ``end_momentum`` is set
                and the length of the run is unknown.
        """
        if self._host_steps is None:
            self._host_steps = int(self.steps)
        # Computed at step 0 too, so a run of unknown length stops at once.
        momentum = self.current_momentum()
        keys, queries = _matched(self.module, source, 'parameters')
        if self._host_steps == 0:
            _copy(keys, queries)
            _copy(*_matched(self.module, source, 'buffers'))
        else:
            _lerp(keys, queries, momentum)
        self.steps.add_(1)
        self._host_steps += 1

    def current_momentum(self) -> float:
        """Share of the query encoder that the next update would take.

        Raises:
            ValueError: If ``end_momentum`` is set and the length of the run
                is not known.
        """
        if self.end_momentum is None and not self.momentum_warmup:
            return self.momentum
        steps = self.steps if self._host_steps is None else self._host_steps
        steps, momentum = int(steps), self.momentum
        if self.end_momentum is not None:
            progress = min(steps / _max_iters(), 1.0)
            cosine = (math.cos(math.pi * progress) + 1) / 2
            drop = self.momentum - self.end_momentum
            momentum = self.end_momentum + drop * cosine
        if steps < self.momentum_warmup:
            rest = 1 - steps / self.momentum_warmup
            momentum += (self.start_momentum - momentum) * rest
        return momentum

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        # The checkpoint has its own count; read it at the next update.
        super()._load_from_state_dict(*args, **kwargs)
        self._host_steps = None

    def extra_repr(self) -> str:
        names = 'momentum', 'end_momentum', 'start_momentum', 'momentum_warmup'
        return ', '.join(f'{name}={getattr(self, name)}' for name in names)


def check_whole(model: nn.Module) -> None:
    """Refuse parameters that are sharded over processes.

    In a forward pass these are views of gathered copies: the key encoder's
    would be updated in a copy that is thrown away, or not at all.

    Args:
        model (nn.Module): The algorithm, within its forward pass.

    Raises:
        ValueError: If FSDP (1 or 2) or DeepSpeed's stage 3 shards it.
    """
    names = {c.__name__ for m in model.modules() for c in type(m).__mro__}
    sharded = names & {'FullyShardedDataParallel', 'FSDPModule'} or any(
        # Views in the place of parameters; DeepSpeed's own attribute.
        not isinstance(p, nn.Parameter) or hasattr(p, 'ds_tensor')
        for p in model.parameters()
    )
    if sharded:
        raise ValueError(
            'UniMoCo cannot train with parameters that are sharded over '
            'processes (FSDP, stage 3 of DeepSpeed): the key encoder would '
            'not follow the query encoder. Leave model_wrapper_cfg and '
            "strategy out, so that mmengine's DistributedDataParallel is used"
        )


def _max_iters() -> int:
    """Return the length of the run in iterations, set by mmengine's hook."""
    hub = MessageHub.get_current_instance()
    max_iters = hub.get_info('max_iters')
    if not max_iters:
        raise ValueError(
            '`end_momentum` needs the length of the run, but "max_iters" is '
            "not in mmengine's MessageHub. Train with mmengine's Runner "
            '(its RuntimeInfoHook sets it), or set it by '
            "`MessageHub.get_current_instance().update_info('max_iters', N)`"
            ', or leave `end_momentum` out.'
        )
    return int(max_iters)


def _matched(
    averaged: nn.Module, source: nn.Module, kind: str
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the tensors of both modules in order, with equal shapes."""
    ours = list(getattr(averaged, kind)())
    theirs = list(getattr(source, kind)())
    if [x.shape for x in ours] != [x.shape for x in theirs]:
        raise ValueError(_difference(averaged, source, kind))
    return ours, theirs


def _difference(averaged: nn.Module, source: nn.Module, kind: str) -> str:
    """Describe the first tensors that differ between two modules."""
    ours, theirs = (
        {n: tuple(x.shape) for n, x in getattr(m, f'named_{kind}')()}
        for m in (averaged, source)
    )
    names = [n for n in {**ours, **theirs} if ours.get(n) != theirs.get(n)]
    shown = '; '.join(
        f'{n}: {ours.get(n, "absent")} here, {theirs.get(n, "absent")} there'
        for n in names[:3]
    )
    return (
        'The query encoder no longer has the structure that the momentum '
        f'encoder was copied from ({len(ours)} {kind} here, {len(theirs)} '
        f'there; {shown}). Change the model before the algorithm is built, '
        'not after.'
    )


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy in place; dtypes and devices may differ."""
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def _lerp(targets: list[Tensor], sources: list[Tensor], weight: float) -> None:
    """Compute ``targets += weight * (sources - targets)`` in place.

    One foreach call per dtype and device. Integer parameters cannot be
    averaged and are copied.
    """
    groups = defaultdict(lambda: ([], []))
    for target, source in zip(targets, sources, strict=True):
        pair = groups[target.dtype, target.device]
        pair[0].append(target)
        pair[1].append(source.to(target))
    for (dtype, _), (ours, theirs) in groups.items():
        if dtype.is_floating_point or dtype.is_complex:
            torch._foreach_lerp_(ours, theirs, weight)
        else:
            _copy(ours, theirs)
