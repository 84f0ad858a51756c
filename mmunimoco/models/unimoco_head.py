"""The head of UniMoCo: key and label queues, loss and log values."""

from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral, Real
from types import ModuleType

import torch
from mmengine.dist import get_rank
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.nn import functional

from mmunimoco.utils.config_errors import check_type

from .collectives import exchange_integers, gather_tensors, upload
from .labels import (
    UNLABELED,
    CollectedSamples,
    KeyBlock,
    SampleLabels,
    check_labels,
    collect_indices,
    collect_labels,
)
from .losses import ContrastiveLoss
from .pair_statistics import PairMonitor, dense_monitor, streamed_statistics


@MODELS.register_module()
class UniMoCoHead(BaseModule):
    """Contrast queries with a queue of labeled and unlabeled keys.

    Beside the queue of keys there is a label queue; comparing labels gives
    every query any number of positives (UniMoCo, arXiv 2103.10773): its own
    key and each queue key of the same known label. All other queue keys are
    negatives. The loss is computed before the batch's keys are enqueued.

    Buffers, all in the checkpoint: ``queue`` (K, C), L2-normalised rows;
    ``label_queue`` (K,) int64, -1 for unlabeled, or (K, num_classes) bool
    with ``multi_label``; ``queue_ptr`` (1,) int64, the next row to write;
    with ``exclude_own_keys`` also ``index_queue`` (K,) int64, -1 for unknown.
    They start with random unlabeled keys that do not depend on the seed. In
    distributed training every rank enqueues the keys of all ranks, in rank
    order.

    Args:
        feat_dim (int): Dimension C of query and key. Defaults to 128.
        queue_len (int): Number of keys K, at least 1. It need not be a
            multiple of the batch size, nor exceed it. Defaults to 65536.
        temperature (float): Divides the similarities. Defaults to 0.2.
        loss (dict): Config of the loss. A loss that is not a
            :class:`ContrastiveLoss` is called as ``loss(logits, positives)``.
            Defaults to ``dict(type='UniConLoss')``.
        positive_temperature (float, optional): Divides the similarities of
            positives instead. Defaults to None, the same temperature.
        num_classes (int, optional): Number of classes; labels outside raise.
            Required with ``multi_label``. Defaults to None.
        multi_label (bool): Whether a sample may have several classes. Two
            samples match if they share at least one. Defaults to False.
        in_batch_positives (bool): Whether keys of the same batch (of all
            ranks) with the query's label are positives too. They are never
            negatives. Defaults to False.
        ignore_unlabeled_keys (bool): Whether unlabeled keys, some of which
            may be of the query's class, are left out of the negatives of
            labeled queries. Defaults to False.
        exclude_own_keys (bool): Whether older keys of the query's own image
            are left out. Defaults to False.
        streamed (bool): Whether to compute chunk by chunk over the queue, in
            memory that does not grow with K; False builds the (N, 1+K) matrix
            of logits, with the same result. Defaults to True.
        fused (bool): Whether to compute the chunks by one Triton kernel on a
            GPU, where samples have one label. It has been compiled for GPUs
            and tested by Triton's interpreter, but not been run on one.
            Defaults to False.
        init_cfg (dict, optional): Initialization config. Defaults to None.

    Raises:
        ValueError: If an argument has the wrong type or is out of range.
    """

    def __init__(
        self,
        feat_dim: int = 128,
        queue_len: int = 65536,
        temperature: float = 0.2,
        loss: dict | None = None,
        positive_temperature: float | None = None,
        num_classes: int | None = None,
        multi_label: bool = False,
        in_batch_positives: bool = False,
        ignore_unlabeled_keys: bool = False,
        exclude_own_keys: bool = False,
        streamed: bool = True,
        fused: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if positive_temperature is None:
            positive_temperature = temperature
        _check_positive('feat_dim', feat_dim, Integral)
        _check_positive('queue_len', queue_len, Integral)
        _check_positive('temperature', temperature, Real)
        _check_positive('positive_temperature', positive_temperature, Real)
        if num_classes is not None:
            _check_positive('num_classes', num_classes, Integral)
        if multi_label and num_classes is None:
            raise ValueError(
                'UniMoCoHead.multi_label=True needs num_classes, the width of '
                'the multi-hot label queue'
            )
        loss = loss or dict(type='UniConLoss')
        check_type('model.head.loss', loss, MODELS)
        self.loss_module = MODELS.build(loss)
        self.temperature = temperature
        self.positive_temperature = positive_temperature
        self.num_classes = num_classes
        self.multi_label = multi_label
        self.in_batch_positives = in_batch_positives
        self.ignore_unlabeled_keys = ignore_unlabeled_keys
        self.exclude_own_keys = exclude_own_keys
        self.streamed = streamed
        self.fused = fused
        if fused:
            _import_fused_pass()
        self._create_queues(queue_len, feat_dim)

    def _create_queues(self, queue_len: int, feat_dim: int) -> None:
        # Its own generator, because all ranks must start with the same queue
        # whatever their seeds.
        generator = torch.Generator().manual_seed(0)
        keys = torch.randn(
            queue_len, feat_dim, generator=generator, device='cpu'
        )
        keys = functional.normalize(keys, dim=1)
        labels = torch.full((queue_len,), UNLABELED)
        if self.multi_label:
            labels = torch.zeros(queue_len, self.num_classes).bool()
        self.register_buffer('queue', keys.to(labels.device))
        self.register_buffer('label_queue', labels)
        self.register_buffer('queue_ptr', torch.zeros(1, dtype=torch.int64))
        if self.exclude_own_keys:
            indices = torch.full((queue_len,), UNLABELED)
            self.register_buffer('index_queue', indices)

    @property
    def feat_dim(self) -> int:
        """Dimension C of the keys."""
        return self.queue.shape[1]

    @property
    def queue_len(self) -> int:
        """Number of keys K in the queue."""
        return len(self.queue)

    def collect(self, data_samples: Sequence[DataSample]) -> SampleLabels:
        """Collect from a batch what this head needs, and check it.

        Args:
            data_samples (Sequence[DataSample]): N samples. Without
                ``gt_label``, or with -1, a sample is unlabeled. Of
                :class:`CollectedSamples` it has been collected before.

        Returns:
            SampleLabels: Of the N samples, on the CPU.

        Raises:
            ValueError: If a label is out of range, a sample has several
                labels without ``multi_label``, or its image cannot be
                identified with ``exclude_own_keys``.
        """
        if isinstance(data_samples, CollectedSamples):
            return data_samples.collected
        labels = collect_labels(
            data_samples, self.num_classes, self.multi_label
        )
        samples = check_labels(labels, self.num_classes, self.multi_label)
        if self.exclude_own_keys:
            samples.indices = collect_indices(data_samples)
        return samples

    def loss(
        self,
        query: Tensor,
        key: Tensor,
        labels: Tensor | SampleLabels,
        batch_sizes: list[int] | None = None,
    ) -> dict[str, Tensor]:
        """Compute loss and log values, then enqueue the keys.

        Args:
            query (Tensor): L2-normalised, shape (N, C), float.
            key (Tensor): L2-normalised, shape (N, C), float, of the same
                images as ``query``. Gets no gradient.
            labels (Tensor | SampleLabels): What :meth:`collect` returned; or
                shape (N,), integer, -1 for unlabeled; with ``multi_label``
                multi-hot of shape (N, num_classes). A tensor is checked,
                which makes the host wait if it is on a GPU.
            batch_sizes (list[int], optional): N of every rank, if the caller
                knows them. Defaults to None: the ranks exchange them.

        Returns:
            dict[str, Tensor]: Scalars: ``loss``; ``top1_labeled`` and
            ``top1_unlabeled``, the share of labeled / unlabeled queries whose
            nearest key is a positive, in percent;
            ``positives_per_labeled_query``, own key included;
            ``positive_similarity`` and ``negative_similarity``, means over
            pairs; ``labeled_queue_share`` in percent. Values about labeled
            or unlabeled queries are missing if the batch has none.

        Raises:
            ValueError: If a shape does not fit, a label is out of range, or
                indices are needed and missing.
        """
        samples = self._check_inputs(query, key, labels)
        batch_key, batch, batch_sizes = self._gather(key, samples, batch_sizes)
        blocks = self._key_blocks(samples, batch_key, batch, batch_sizes)
        loss, monitor = self._compute_loss(query, key.detach(), blocks)
        log_values = _log_values(monitor, samples)
        self._enqueue(batch_key, batch)
        share = SampleLabels(self.label_queue).known.float().mean()
        return dict(loss=loss, labeled_queue_share=100 * share, **log_values)

    @torch.no_grad()
    def collapsed_loss(self, num_queries: int = 256) -> Tensor:
        """Return the loss if all features were the same.

        For UniCon that is ``log(1 + |N| |P|)``. A loss near this value means
        that the features tell no images apart. Queries are taken to be labeled
        as the keys of the queue are; ``in_batch_positives`` and
        ``exclude_own_keys`` are left aside.

        Args:
            num_queries (int): Keys, spread over the queue, whose labels serve
                as those of queries. Defaults to 256.

        Returns:
            Tensor: Scalar.
        """
        count = min(num_queries, self.queue_len)
        rows = torch.arange(count, device=self.queue.device)
        rows = rows * self.queue_len // count
        feature = torch.zeros_like(self.queue[:1])
        feature[:, 0] = 1
        uses_labels = getattr(self.loss_module, 'uses_labels', True)
        block = KeyBlock(
            feature.expand_as(self.queue),
            SampleLabels(self.label_queue),
            SampleLabels(self.label_queue[rows], has_labels=uses_labels),
            ignore_unlabeled=self.ignore_unlabeled_keys,
        )
        features = feature.expand(count, -1)
        return self._compute_loss(features, features, [block])[0]

    def _key_blocks(
        self,
        samples: SampleLabels,
        batch_key: Tensor,
        batch: SampleLabels,
        batch_sizes: list[int],
    ) -> list[KeyBlock]:
        """Return all keys but the own ones."""
        if not getattr(self.loss_module, 'uses_labels', True):
            samples = replace(samples, has_labels=False)
        indices = self.index_queue if self.exclude_own_keys else None
        options = dict(
            query_labels=samples,
            ignore_unlabeled=self.ignore_unlabeled_keys,
            exclude_own=self.exclude_own_keys,
        )
        queue_labels = SampleLabels(self.label_queue, indices)
        blocks = [KeyBlock(self.queue, queue_labels, **options)]
        if self.in_batch_positives and samples.has_labels:
            own_start = sum(batch_sizes[: get_rank()])
            blocks.append(
                KeyBlock(batch_key, batch, own_start=own_start, **options)
            )
        return blocks

    def _compute_loss(
        self, query: Tensor, key: Tensor, blocks: list[KeyBlock]
    ) -> tuple[Tensor, PairMonitor]:
        streams = self.streamed and isinstance(
            self.loss_module, ContrastiveLoss
        )
        compute = self._streamed_loss if streams else self._dense_loss
        return compute(query, key, blocks)

    def _streamed_loss(
        self, query: Tensor, key: Tensor, blocks: list[KeyBlock]
    ) -> tuple[Tensor, PairMonitor]:
        compute = streamed_statistics
        if self.fused and query.is_cuda:
            fused_pass = _import_fused_pass()
            query = query.to(torch.promote_types(query.dtype, torch.float32))
            if fused_pass.supports(query, blocks):
                compute = fused_pass.fused_statistics
        statistics, monitor = compute(
            query,
            key,
            blocks,
            self.temperature,
            self.positive_temperature,
            self.loss_module.statistics,
        )
        return self.loss_module.from_statistics(statistics).mean(), monitor

    def _dense_loss(
        self, query: Tensor, key: Tensor, blocks: list[KeyBlock]
    ) -> tuple[Tensor, PairMonitor]:
        dtype = torch.promote_types(query.dtype, torch.float32)
        with torch.autocast(device_type=query.device.type, enabled=False):
            query, key = query.to(dtype), key.to(dtype)
            similarity = [(query * key).sum(dim=1, keepdim=True)]
            positives = [torch.ones_like(similarity[0], dtype=torch.bool)]
            ignored = [~positives[0]]
            for block in blocks:
                # A copy: the queue is written to before the backward pass.
                keys = block.keys.to(dtype, copy=True)
                similarity.append(query @ keys.T)
                empty = torch.zeros_like(similarity[-1], dtype=torch.bool)
                positive, left_out = block.masks(slice(0, len(keys)))
                positives.append(empty if positive is None else positive)
                ignored.append(empty if left_out is None else left_out)
            similarity = torch.cat(similarity, dim=1)
            positives = torch.cat(positives, dim=1)
            ignored = torch.cat(ignored, dim=1)
            logits = torch.where(
                positives,
                similarity / self.positive_temperature,
                similarity / self.temperature,
            ).masked_fill(ignored, float('-inf'))
            loss = self.loss_module(logits, positives)
        return loss, dense_monitor(similarity, positives, ignored)

    def _gather(
        self,
        key: Tensor,
        samples: SampleLabels,
        batch_sizes: list[int] | None,
    ) -> tuple[Tensor, SampleLabels, list[int]]:
        """Return keys and labels of all ranks, from one collective."""
        tensors = [key.detach().to(self.queue.dtype), samples.labels]
        if self.exclude_own_keys:
            tensors.append(samples.indices)
        if batch_sizes is None:
            batch_sizes = [n for (n,) in exchange_integers([len(key)])]
        batch_key, *rest = gather_tensors(tensors, batch_sizes)
        return batch_key, SampleLabels(*rest), batch_sizes

    @torch.no_grad()
    def _enqueue(self, keys: Tensor, samples: SampleLabels) -> None:
        """Write the batch over the oldest keys, wrapping around.

        A key that is not finite is dropped and the old one stays: as a
        negative of every query it would spoil all losses until overwritten.
        """
        rows = torch.arange(len(keys), device=keys.device) + self.queue_ptr
        rows = rows[-self.queue_len :] % self.queue_len
        written = [(self.queue, keys), (self.label_queue, samples.labels)]
        if self.exclude_own_keys:
            written.append((self.index_queue, samples.indices))
        finite = keys[-self.queue_len :].isfinite().all(dim=1)
        for queue, new in written:
            new = new[-self.queue_len :]
            mask = finite.reshape(-1, *[1] * (new.dim() - 1))
            queue[rows] = torch.where(mask, new, queue[rows])
        self.queue_ptr += len(keys)
        self.queue_ptr %= self.queue_len

    def _check_inputs(
        self, query: Tensor, key: Tensor, labels: Tensor | SampleLabels
    ) -> SampleLabels:
        """Check shapes and labels; return the labels on the query's device."""
        shape = (len(query), self.feat_dim)
        if query.shape != shape or key.shape != shape or not len(query):
            raise ValueError(
                f'query and key must both have shape (N, {shape[1]}) with '
                'N >= 1, where the second is UniMoCoHead.feat_dim, the '
                "neck's out_channels; but got "
                f'{tuple(query.shape)} and {tuple(key.shape)}'
            )
        values = labels if isinstance(labels, Tensor) else labels.labels
        shape = shape[:1] + ((self.num_classes,) if self.multi_label else ())
        if values.shape != shape:
            raise ValueError(
                f'labels must have shape {shape} (multi_label='
                f'{self.multi_label}), but got {tuple(values.shape)}'
            )
        if isinstance(labels, Tensor):
            labels = check_labels(labels, self.num_classes, self.multi_label)
        if self.exclude_own_keys and labels.indices is None:
            raise ValueError(
                'UniMoCoHead.exclude_own_keys=True needs the indices of the '
                'images: pass the result of collect(data_samples), or '
                'SampleLabels with indices'
            )
        indices = labels.indices
        return replace(
            labels,
            labels=upload(labels.labels, query.device),
            indices=None if indices is None else upload(indices, query.device),
        )


def _import_fused_pass() -> ModuleType:
    try:
        from . import fused_pass
    except ImportError as error:
        raise ValueError(
            'UniMoCoHead.fused=True needs Triton 3, which torch from 2.4 on '
            f'installs for GPUs ({error}); set model.head.fused=False'
        ) from error
    return fused_pass


def _log_values(
    monitor: PairMonitor, samples: SampleLabels
) -> dict[str, Tensor]:
    """Average over the batch; see :meth:`UniMoCoHead.loss`."""
    # The nearest key is a positive if no negative is as near.
    hits = 100.0 * (monitor.nearest > monitor.nearest_negative)
    known, values = samples.known, {}
    # Zeros for absent queries would enter the mean over the steps of a log
    # line. What the batch holds is known to the host, so nothing waits.
    if samples.has_labels:
        values['positives_per_labeled_query'] = _masked_mean(
            monitor.num_positives, known
        )
        values['top1_labeled'] = _masked_mean(hits, known)
    if samples.has_unlabeled:
        values['top1_unlabeled'] = _masked_mean(hits, ~known)
    positives = monitor.positive_sum.sum() / monitor.num_positives.sum()
    num_negatives = monitor.num_negatives.sum().clamp(min=1)
    values['positive_similarity'] = positives
    values['negative_similarity'] = monitor.negative_sum.sum() / num_negatives
    return values


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    mask = mask.to(values.dtype)
    return (values * mask).sum() / mask.sum()


def _check_positive(name: str, value: object, kind: type) -> None:
    valid = isinstance(value, kind) and not isinstance(value, bool)
    if not valid or not value > 0:
        noun = 'an integer' if kind is Integral else 'a number'
        raise ValueError(
            f'UniMoCoHead.{name} must be {noun} > 0, but got {value!r}; '
            f'change model.head.{name}'
        )
