"""The UniMoCo algorithm: two encoders; the head does the rest."""

import torch
from mmengine.dist import get_world_size
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.nn import functional

from mmunimoco.utils.config_errors import check_type

from .batch_shuffle import ShufflePlan
from .momentum_encoder import MomentumEncoder
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
        ValueError: If a momentum is outside [0, 1], the type of a part is
            unknown, or feature dimensions do not match.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        head: dict,
        momentum: float = 0.001,
        end_momentum: float | None = None,
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
        self.encoder_k = MomentumEncoder(encoder, momentum, end_momentum)
        self.shuffle_bn = shuffle_bn
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
            ValueError: If there are not two views, or a label is invalid.
        """
        if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
            raise ValueError(
                'UniMoCo needs two views of each image; use LoadTwoCrops, or '
                "dict(type='MultiView', num_views=2, ...), in the pipeline"
            )
        view_q, view_k = inputs
        labels = self.head.collect(data_samples)
        plan = self._draw_shuffle(len(view_k), view_k.device)
        # The key images are exchanged while the queries are computed.
        arrive = None if plan is None else plan.start_shuffle(view_k)

        query = _normalize(self.neck(self.backbone(view_q))[0])
        with torch.no_grad():
            self.encoder_k.update(nn.Sequential(self.backbone, self.neck))
            key = self.encoder_k(view_k if plan is None else arrive())[0]
            key = _normalize(key)
        if plan is None:
            return self.head.loss(query, key, labels)
        return self.head.loss(
            query, plan.restore(key), labels, plan.batch_sizes
        )

    def _check_widths(self, neck: dict) -> None:
        """Compare feature dimensions, where the parts expose them."""
        if not isinstance(neck, dict):
            return
        backbone_width = _num_features(self.backbone)
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


def _num_features(backbone: nn.Module) -> int | None:
    """Return the output width of a backbone of mmpretrain, if it is known."""
    # ResNet.feat_dim is the width of the last stage.
    if hasattr(backbone, 'feat_dim'):
        stages = getattr(backbone, 'num_stages', None)
        last = tuple(getattr(backbone, 'out_indices', ()))[-1:]
        return backbone.feat_dim if last == (stages and stages - 1,) else None
    return getattr(backbone, 'embed_dims', None)


def _normalize(features: Tensor) -> Tensor:
    """L2-normalise rows; half precision is computed in float32."""
    dtype = torch.promote_types(features.dtype, torch.float32)
    return functional.normalize(features.to(dtype), dim=1)
