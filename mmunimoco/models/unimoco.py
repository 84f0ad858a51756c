"""The UniMoCo algorithm: two encoders; the head does the rest."""

import math
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmpretrain.models.backbones import ResNet
from mmpretrain.models.necks import MoCoV2Neck, NonLinearNeck
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.nn import functional

from mmunimoco.utils.config_errors import check_type

from .batch_shuffle import ShufflePlan
from .momentum_encoder import MomentumEncoder, check_whole
from .split_batch_norm import SplitBatchNorm


@MODELS.register_module()
class UniMoCo(BaseSelfSupervisor):
    """Momentum contrast with any share of labels (arXiv 2103.10773).

    A training step follows the published order: query forward, momentum
    update, key forward on shuffled images, loss against the queue, enqueue.
    Checkpoint keys are ``backbone.*``, ``neck.*``, ``encoder_k.*`` (as in
    mmpretrain's ``MoCo``) and ``head.*`` with the queues; only ``backbone.*``
    transfers.

    Args:
        backbone (dict): Config of the backbone.
        neck (dict): Config of the neck, the projection to ``feat_dim``.
        head (dict): Config of the head, a :class:`UniMoCoHead`.
        momentum (float): Share of the query encoder that enters the momentum
            encoder in each step: 0.001 is the published m = 0.999.
            Defaults to 0.001.
        end_momentum (float, optional): If given, ``momentum`` follows half a
            cosine to this value over the run. Defaults to None.
        start_momentum (float, optional): If given, ``momentum`` starts here
            and is reached after ``momentum_warmup`` steps. Defaults to None.
        momentum_warmup (int): Steps of this warm-up. Defaults to 0.
        shuffle_bn (bool): Whether to shuffle the key images, over all ranks
            or among the groups of :class:`SplitBatchNorm`, so batch
            statistics cannot reveal which key belongs to a query.
            Defaults to True.
        pretrained (str, optional): Checkpoint to start from.
            Defaults to None.
        data_preprocessor (dict, optional): Config of the data preprocessor.
            :class:`TwoViewAugment` keeps labels on the CPU, so reading them
            does not wait for a GPU. Defaults to None,
            ``SelfSupDataPreprocessor``.
        init_cfg (dict, optional): Initialization config. Defaults to None.

    Raises:
        ValueError: If a momentum or its warm-up is invalid, the type of a part
            is unknown, or feature dimensions do not match. Those of backbone
            and neck are known at build time for a ResNet, for others in the
            first step.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        head: dict,
        momentum: float = 0.001,
        end_momentum: float | None = None,
        start_momentum: float | None = None,
        momentum_warmup: int = 0,
        shuffle_bn: bool = True,
        pretrained: str | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        parts = dict(backbone=backbone, neck=neck, head=head)
        for name, config in parts.items():
            check_type(f'model.{name}', config, MODELS)
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            pretrained=pretrained,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        self._check_widths(neck)
        encoder = nn.Sequential(self.backbone, self.neck)
        self.encoder_k = MomentumEncoder(
            *(encoder, momentum, end_momentum),
            *(start_momentum, momentum_warmup),
        )
        self.shuffle_bn = shuffle_bn
        self._is_checked = False
        self._splits_batch = any(
            isinstance(module, SplitBatchNorm) for module in encoder.modules()
        )

    def loss(
        self, inputs: list[Tensor], data_samples: list[DataSample]
    ) -> dict[str, Tensor]:
        """Compute the loss of a batch and enqueue its keys.

        Args:
            inputs (list[Tensor]): View for the query and view for the key,
                each of shape (N, 3, H, W).
            data_samples (list[DataSample]): N samples. Without ``gt_label``,
                or with -1, a sample is unlabeled.

        Returns:
            dict[str, Tensor]: ``loss`` and the log values of the head.

        Raises:
            ValueError: If there are not two views, a label is invalid, the
                neck does not take what the backbone returns, or parameters
                are sharded over processes.
        """
        if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
            raise ValueError(
                'UniMoCo needs two views of each image; use LoadTwoCrops, or '
                "dict(type='MultiView', num_views=2, ...), in the pipeline"
            )
        if not self._is_checked:
            check_whole(self)
            self._is_checked = True
        view_q, view_k = inputs
        labels = self.head.collect(data_samples)
        plan = self._draw_shuffle(len(view_k), view_k.device)
        # The key images are exchanged while the queries are computed.
        arrive = None if plan is None else plan.start_shuffle(view_k)

        query = _normalize(self._project(self.backbone(view_q)))
        with torch.no_grad():
            self.encoder_k.update(nn.Sequential(self.backbone, self.neck))
            key = self.encoder_k(view_k if plan is None else arrive())[0]
            key = _normalize(key)
        if plan is None:
            return self.head.loss(query, key, labels)
        return self.head.loss(
            query, plan.restore(key), labels, plan.batch_sizes
        )

    def counts_steps(self) -> bool:
        """Whether an option still changes with the number of steps."""
        momentum, head = self.encoder_k, self.head
        return bool(
            momentum.end_momentum is not None
            or momentum.steps < momentum.momentum_warmup
            or (hasattr(head, 'steps') and head.steps < head.steps_to_start)
        )

    def _project(self, features: tuple[Tensor, ...]) -> Tensor:
        """Run the neck; if it fails for the shapes, say what does not fit."""
        try:
            return self.neck(features)[0]
        except Exception as error:
            fault = _misfit(features, self.neck)
            if fault is None:
                raise
            raise ValueError(fault) from error

    def _check_widths(self, neck: dict) -> None:
        """Compare the feature dimensions that are known for certain."""
        if not isinstance(neck, dict):
            return
        backbone_width = _resnet_width(self.backbone)
        head_width = getattr(self.head, 'feat_dim', None)
        for name, wanted, other in (
            ('in_channels', backbone_width, 'model.backbone'),
            ('out_channels', head_width, 'model.head.feat_dim'),
        ):
            given = neck.get(name)
            if None not in (given, wanted) and given != wanted:
                raise ValueError(
                    f'model.neck.{name} is {given}, but {other} requires '
                    f'{wanted}: change one of them'
                )

    def _draw_shuffle(
        self, batch_size: int, device: torch.device
    ) -> ShufflePlan | None:
        # In one process with plain BN, shuffling would change nothing.
        useful = get_world_size() > 1 or self._splits_batch
        if not (self.shuffle_bn and useful):
            return None
        return ShufflePlan.draw(batch_size, device)


def _resnet_width(backbone: nn.Module) -> int | None:
    """Output width of a ResNet of mmpretrain; None for other backbones.

    Others have no attribute that means it: ``embed_dims`` is the width of
    the first stage in a Swin transformer, and a list in a PVT.
    """
    if not isinstance(backbone, ResNet):
        return None
    # feat_dim is the width of the last stage, which may not be the output.
    last = tuple(backbone.out_indices)[-1:]
    return backbone.feat_dim if last == (backbone.num_stages - 1,) else None


def _misfit(features: Any, neck: nn.Module) -> str | None:
    """Say why a neck of mmpretrain cannot take the output of a backbone.

    Args:
        features (Any): Output of the backbone, on which the neck failed.
        neck (nn.Module): The neck.

    Returns:
        str | None: The message; None if the shapes are not the reason.
    """
    if not isinstance(neck, (MoCoV2Neck, NonLinearNeck)):
        return None
    outputs = [features] if isinstance(features, Tensor) else list(features)
    if len(outputs) != 1 or not isinstance(outputs[0], Tensor):
        return (
            f'model.neck is a {type(neck).__name__}, which takes one output, '
            f'but model.backbone returns {len(outputs)} or a nested one: set '
            'its out_indices to the last stage, or use a neck that takes them'
        )
    shape = tuple(outputs[0].shape)
    pooled = neck.with_avg_pool
    if pooled and len(shape) != 4:
        return (
            'model.neck.with_avg_pool=True averages (N, C, H, W), but '
            f'model.backbone returns {shape}: set '
            'model.neck.with_avg_pool=False'
            + (
                ", and for a transformer model.backbone.out_type='cls_token' "
                "or 'avg_featmap'"
                if len(shape) == 3
                else ''
            )
        )
    linear = next((m for m in neck.modules() if isinstance(m, nn.Linear)), 0)
    given = getattr(linear, 'in_features', None)
    width = shape[1] if pooled else math.prod(shape[1:])
    if given in (None, width):
        return None
    unpooled = len(shape) == 4 and not pooled
    return (
        f'model.neck.in_channels is {given}, but model.backbone '
        f'returns {shape}, {width} numbers an image: change one of them'
        + (', or set model.neck.with_avg_pool=True' if unpooled else '')
    )


def _normalize(features: Tensor) -> Tensor:
    """L2-normalise rows; half precision is computed in float32."""
    dtype = torch.promote_types(features.dtype, torch.float32)
    return functional.normalize(features.to(dtype), dim=1)
