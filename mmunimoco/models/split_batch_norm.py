"""Batch normalisation over several virtual devices on one real one."""

from mmengine.registry import MODELS
from torch import Tensor, cat
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


# In mmengine's root registry: `build_norm_layer` looks there, whatever the
# default scope of the config. A direct child of `_BatchNorm`, because the
# layer rules of mmengine's initialisers look one base class up and no further.
@MODELS.register_module()
class SplitBatchNorm(_BatchNorm):
    """BatchNorm whose batch is split into contiguous groups in training.

    On one GPU plain BN lets the encoders cheat: query and key of an image
    are normalised by statistics of the same batch. Splitting the batch into
    groups, with the keys shuffled, is the remedy known for one device. A
    step of N samples normalises as ``num_splits`` devices with N /
    num_splits samples each do (``torch.tensor_split`` where that is uneven).

    Every group updates running statistics of its own, as a device would,
    and the layer keeps their mean: with f the ``momentum`` (or 1 /
    ``num_batches_tracked`` where it is None), ``running = (1 - f) * running
    + f * mean over groups of the group's mean (unbiased variance)``. The
    groups count alike, whatever their sizes. Evaluation is plain BN, and a
    checkpoint has the keys of plain BN.

    It takes (N, C), (N, C, L), (N, C, H, W) and (N, C, D, H, W), so it
    serves backbones and necks. When distributed, each rank splits its own
    batch.

    Args:
        num_features (int): C.
        num_splits (int): Number of virtual devices. Defaults to 8.
        **kwargs: Those of :class:`torch.nn.BatchNorm2d`.

    Raises:
        ValueError: If ``num_splits`` is not a positive integer; in training
            also if the batch has fewer samples than groups, or a group has a
            single value for each channel.
    """

    # The attribute by which mmcv names layers: bn1, as in every checkpoint.
    _abbr_ = 'bn'

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
        """Normalise each group by its statistics, or all by running ones.

        Args:
            input (Tensor): (N, C, ...) float.

        Returns:
            Tensor: As ``input``.
        """
        if not self.training or self.num_splits == 1:
            return super().forward(input)
        self._check_input_dim(input)
        self._check_groups(input)
        # One call a group on views of the input: folding the groups into
        # the channels takes one call, but copies the batch twice (measured
        # slower, most of all for channels-last maps).
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
        """Copies of the running statistics for each group, or Nones."""
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
