"""Batch normalisation over several virtual devices on one real one."""

import torch
from mmengine.registry import MODELS
from torch import Tensor, cat
from torch.fx import Proxy
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


# In mmengine's root registry, where `build_norm_layer` finds it with any
# default scope. A direct subclass of `_BatchNorm`, because mmengine's
# initialisers look up the name of the direct base class only.
@MODELS.register_module()
class SplitBatchNorm(_BatchNorm):
    """BatchNorm whose batch is split into contiguous groups in training.

    On one GPU plain BN leaks information: query and key of an image are
    normalised by statistics of the same batch. Splitting the batch into
    groups, with the keys shuffled, is the known remedy (MoCo's CIFAR demo).
    A batch of N samples is normalised as ``num_splits`` devices with
    N / num_splits samples each would do it (``torch.tensor_split`` if that
    is uneven).

    The running statistics are the mean over those of the groups: with f the
    ``momentum`` (or 1 / ``num_batches_tracked`` if it is None),
    ``running = (1 - f) * running + f * mean over groups``, each group with
    equal weight. Evaluation is plain BN, and checkpoint keys are those of
    plain BN.

    Accepts (N, C), (N, C, L), (N, C, H, W) and (N, C, D, H, W), so it serves
    backbones and necks. In distributed training each rank splits its own
    batch. It can be traced by ``torch.fx`` (mmengine's
    ``efficient_conv_bn_eval``) and ``torch.jit``; scripted, it only evaluates.

    Args:
        num_features (int): C.
        num_splits (int): Number of virtual devices. Defaults to 8.
        **kwargs: Those of :class:`torch.nn.BatchNorm2d`.

    Raises:
        ValueError: If ``num_splits`` is not a positive integer; in training
            also if the batch has fewer samples than groups, or a group has a
            single value for each channel.
    """

    def __init__(
        self, num_features: int, num_splits: int = 8, **kwargs
    ) -> None:
        if not isinstance(num_splits, int) or num_splits < 1:
            raise ValueError(
                '`num_splits` of SplitBatchNorm must be a positive integer, '
                f'got {num_splits!r}.'
            )
        super().__init__(num_features, **kwargs)
        self.num_splits = num_splits

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each group by its own statistics; in evaluation plain BN.

        Args:
            input (Tensor): (N, C, ...) float.

        Returns:
            Tensor: Shape of ``input``.
        """
        if torch.jit.is_scripting():
            return self._scripted_forward(input)
        elif isinstance(input, Proxy):
            # A leaf of the graph, as torch's own layers are: what a batch is
            # split into depends on the mode, which changes after tracing.
            tracer = input.tracer
            name = tracer.path_of_module(self)
            return tracer.create_proxy('call_module', name, (input,), {})
        elif not self.training or self.num_splits == 1:
            return super().forward(input)
        self._check_input_dim(input)
        self._check_groups(input)
        if _is_compiling() and len(input) % self.num_splits == 0:
            return self._normalize_at_once(input)
        return self._normalize_in_turn(input)

    def _normalize_in_turn(self, input: Tensor) -> Tensor:
        """Call ``batch_norm`` for each group, on views.

        Outside of ``torch.compile`` this is the faster form. Folding the
        groups into the channels would be one call, but copies the batch twice
        and measured slower.
        """
        groups = input.tensor_split(self.num_splits)
        means, variances = self._running_of_groups()
        factor = self._average_factor()
        out = cat(
            [
                F.batch_norm(
                    group,
                    mean,
                    variance,
                    self.weight,
                    self.bias,
                    training=True,
                    momentum=factor,
                    eps=self.eps,
                )
                for group, mean, variance in zip(
                    groups, means, variances, strict=True
                )
            ]
        )
        if self.track_running_stats:
            self.running_mean.copy_(means.mean(0))
            self.running_var.copy_(variances.mean(0))
        return out

    def _normalize_at_once(self, input: Tensor) -> Tensor:
        """Normalise groups of one size by reductions over all of them.

        ``torch.compile`` fuses it to a few kernels a layer, where it calls
        ``batch_norm`` once a group. Uncompiled, each operation would pass
        over the batch, twice as often as ``batch_norm`` does.
        """
        # In float32 at least: the statistics of half precision are too coarse.
        dtype = torch.promote_types(input.dtype, torch.float32)
        # Splitting a dimension is a view in any memory format.
        groups = input.unflatten(0, (self.num_splits, -1)).to(dtype)
        dims = [1, *range(3, groups.dim())]
        variances, means = torch.var_mean(
            groups, dims, correction=0, keepdim=True
        )
        count = groups[0, :, 0].numel()
        self._track(means, variances * (count / (count - 1)))
        out = (groups - means) * (variances + self.eps).rsqrt()
        if self.affine:
            shape = (-1, *[1] * (input.dim() - 2))
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.flatten(0, 1).to(input.dtype)

    @torch.no_grad()
    def _track(self, means: Tensor, variances: Tensor) -> None:
        """Update the running statistics by those of all groups."""
        factor = self._average_factor()
        if not self.track_running_stats:
            return
        for running, found in (
            (self.running_mean, means),
            (self.running_var, variances),
        ):
            found = found.view(self.num_splits, -1).mean(0)
            running.lerp_(found.to(running.dtype), factor)

    def _scripted_forward(self, input: Tensor) -> Tensor:
        """Evaluate; TorchScript has neither super() nor groups of None."""
        if self.training:
            raise RuntimeError(
                'SplitBatchNorm under torch.jit.script only evaluates: call '
                'eval() on the scripted module'
            )
        return F.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.running_mean is None,
            momentum=0.0,
            eps=self.eps,
        )

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, num_splits={self.num_splits}'

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(
                'SplitBatchNorm expects (N, C, ...), got shape '
                f'{tuple(input.shape)}.'
            )

    def _check_groups(self, input: Tensor) -> None:
        smallest = len(input) // self.num_splits
        if smallest == 0:
            raise ValueError(
                f'SplitBatchNorm cannot split {len(input)} samples into '
                f'num_splits={self.num_splits} groups: use a larger batch '
                'size (and drop_last) or fewer num_splits.'
            )
        if smallest * input[0, 0].numel() == 1:
            raise ValueError(
                f'SplitBatchNorm got {len(input)} samples of shape '
                f'{tuple(input.shape[1:])} for num_splits='
                f'{self.num_splits}: a group with a single value for each '
                'channel has no variance. Use a batch size of at least '
                f'{2 * self.num_splits} (and drop_last) or fewer num_splits.'
            )

    def _running_of_groups(self):
        """Return copies of the running statistics per group, or Nones."""
        if not self.track_running_stats:
            return [None] * self.num_splits, [None] * self.num_splits
        shape = (self.num_splits, self.num_features)
        return (
            self.running_mean.expand(shape).clone(),
            self.running_var.expand(shape).clone(),
        )

    def _average_factor(self) -> float:
        """Count the batch and return the weight of its statistics."""
        if not self.track_running_stats:
            return 0.0
        self.num_batches_tracked.add_(1)
        if self.momentum is None:
            return 1.0 / float(self.num_batches_tracked)
        return self.momentum


def _is_compiling() -> bool:
    # torch 2.1 cannot tell; it compiles the loop over the groups.
    return getattr(torch.compiler, 'is_compiling', bool)()
