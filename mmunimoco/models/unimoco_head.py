"""The head of UniMoCo: key and label queues, loss and log values."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral, Real
from types import ModuleType

import torch
from mmengine.dist import get_rank
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

from mmunimoco.utils.config_errors import check_type

from .collectives import exchange_integers, gather_tensors, upload
from .dense_pairs import dense_pairs
from .key_queues import KeyQueues
from .label_propagation import LabelPropagation
from .labels import (
    UNLABELED,
    CollectedSamples,
    KeyBlock,
    SampleLabels,
    check_labels,
    collect_indices,
    collect_labels,
    draw_labeled,
)
from .log_values import log_values
from .losses import ContrastiveLoss
from .pair_statistics import PairMonitor, streamed_statistics
from .triton_kernels import import_kernels, uses_kernels


@MODELS.register_module()
class UniMoCoHead(KeyQueues):
    """Contrast queries with a queue of labeled and unlabeled keys.

    Beside the queue of keys there is a label queue; comparing labels gives
    every query any number of positives (UniMoCo, arXiv 2103.10773): its own
    key and each queue key of the same known label. All other queue keys are
    negatives. The loss is computed before the batch's keys are enqueued.

    Buffers, all in the checkpoint: ``queue`` (K, C), L2-normalised rows;
    ``label_queue`` (K,) int64, -1 for unlabeled, or (K, num_classes) bool
    with ``multi_label``; ``queue_ptr`` (1,) int64, the next row to write;
    with ``exclude_own_keys`` also ``index_queue`` (K,) int64, -1 for unknown;
    with ``propagate_labels`` ``propagated_queue`` (K,) int64, -1 for none,
    and with that or ``label_warmup`` ``steps``, the number of batches so far.
    They start with random unlabeled keys that do not depend on the seed. In
    distributed training every rank enqueues the keys of all ranks, in rank
    order.

    Args:
        feat_dim (int): Dimension C of query and key. Defaults to 128.
        queue_len (int): Number of keys K, at least 1. It need not be a
            multiple of the batch size, nor exceed it. Defaults to 65536.
        temperature (float): Divides the similarities. Defaults to 0.2.
        loss (dict): Config of the loss. A loss that is not a
            :class:`ContrastiveLoss`, or has a ``forward`` of its own, is
            called as ``loss(logits, positives)``.
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
        max_positives (int, optional): Only the newest so many queue keys of
            a class are positives of its queries, the older ones are left
            out. Not with ``multi_label``. Defaults to None, all.
        label_warmup (int): Batches over which the share of labeled queries
            that use their label rises linearly from 0 to 1. The others, drawn
            anew for each batch, are treated as unlabeled. Defaults to 0.
        propagate_labels (dict, optional): Arguments of
            :class:`LabelPropagation`: unlabeled keys get labels from their
            neighbours in the queue. Queries do not, nor do keys of the same
            batch. Not with ``multi_label``. Defaults to None.
        streamed (bool): Whether to compute chunk by chunk over the queue, in
            memory that does not grow with K; False builds the (N, 1+K) matrix
            of logits, with the same result. Defaults to True.
        fused (bool, optional): Whether to compute the chunks by Triton
            kernels on a GPU. They do not serve float64, ``feat_dim`` above
            256, ``multi_label``, ``max_positives`` and propagated labels to
            ``'ignore'``. Defaults to None: if Triton 3 is installed, on
            NVIDIA GPUs that have bfloat16.
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
        max_positives: int | None = None,
        label_warmup: int = 0,
        propagate_labels: dict | None = None,
        streamed: bool = True,
        fused: bool | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if positive_temperature is None:
            positive_temperature = temperature
        _check_positive('feat_dim', feat_dim, Integral)
        _check_positive('queue_len', queue_len, Integral)
        _check_positive('temperature', temperature, Real)
        _check_positive('positive_temperature', positive_temperature, Real)
        if num_classes is not None:
            _check_positive('num_classes', num_classes, Integral)
        if max_positives is not None:
            _check_positive('max_positives', max_positives, Integral)
        if label_warmup != 0:
            _check_positive('label_warmup', label_warmup, Integral)
        propagation = LabelPropagation.from_config(propagate_labels)
        for name, value in dict(
            max_positives=max_positives, propagate_labels=propagation
        ).items():
            if multi_label and value is not None:
                raise ValueError(
                    f'UniMoCoHead.{name} needs one label a sample; set '
                    f'model.head.{name}=None or model.head.multi_label=False'
                )
        if multi_label and num_classes is None:
            raise ValueError(
                'UniMoCoHead.multi_label=True needs num_classes, the width of '
                'the multi-hot label queue'
            )
        super().__init__(
            feat_dim,
            queue_len,
            num_classes if multi_label else None,
            with_indices=exclude_own_keys,
            with_propagated=propagation is not None,
            with_steps=bool(label_warmup) or propagation is not None,
            init_cfg=init_cfg,
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
        self.max_positives = max_positives
        self.label_warmup = label_warmup
        self.propagation = propagation
        self.streamed = streamed
        self.fused = fused
        if fused:
            _import_fused_pass()
        # Called in each step, before the keys are enqueued, with queries, own
        # keys, their SampleLabels and the other keys.
        self.observers: list[Callable] = []

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
            pairs; ``labeled_queue_share`` in percent, and with
            ``propagate_labels`` ``propagated_queue_share``. Values about
            labeled or unlabeled queries are missing if the batch has none.

        Raises:
            ValueError: If a shape does not fit, a label is out of range, or
                indices are needed and missing.
        """
        samples = self._check_inputs(query, key, labels)
        batch_key, batch, batch_sizes = self._gather(key, samples, batch_sizes)
        blocks = self._key_blocks(samples, batch_key, batch, batch_sizes)
        key = key.detach()
        for observe in self.observers:
            observe(query.detach(), key, samples, blocks)
        compute = self._choose_pass(query, blocks)
        values = self.contrast(
            compute, query, key, samples, blocks, batch_key, batch
        )
        self.count_step()
        return values

    def contrast(
        self,
        compute: Callable | None,
        query: Tensor,
        key: Tensor,
        samples: SampleLabels,
        blocks: list[KeyBlock],
        batch_key: Tensor,
        batch: SampleLabels,
    ) -> dict[str, Tensor]:
        """Do what of :meth:`loss` neither communicates nor counts steps.

        A step of its own, so that it can be compiled.
        """
        losses, monitor = self._compute_losses(compute, query, key, blocks)
        values = dict(loss=losses.mean(), **log_values(monitor, samples))
        self.enqueue(batch_key, batch)
        share = SampleLabels(self.label_queue).known.float().mean()
        values['labeled_queue_share'] = 100 * share
        if self.propagation is not None:
            share = (self.propagated_queue != UNLABELED).float().mean()
            values['propagated_queue_share'] = 100 * share
        return values

    @torch.no_grad()
    def query_losses(
        self, query: Tensor, key: Tensor, blocks: list[KeyBlock]
    ) -> tuple[Tensor, PairMonitor]:
        """Compute the loss of each query, without gradient.

        Args:
            query (Tensor): L2-normalised, shape (N, C), float.
            key (Tensor): Own keys, of the same shape.
            blocks (list[KeyBlock]): All other keys.

        Returns:
            tuple[Tensor, PairMonitor]: The losses, shape (N,), or a scalar if
            the loss has a ``forward`` of its own; and similarities.
        """
        compute = self._choose_pass(query, blocks)
        return self._compute_losses(compute, query, key, blocks)

    def collapsed_losses(
        self, num_queries: int, blocks: list[KeyBlock]
    ) -> Tensor:
        """Return the loss of each query if all features were the same.

        Args:
            num_queries (int): Number of queries N.
            blocks (list[KeyBlock]): Whose labels tell positives from
                negatives; their keys are not read.

        Returns:
            Tensor: Shape (N,), or a scalar, as of :meth:`query_losses`.
        """
        feature = torch.zeros_like(self.queue[:1])
        feature[:, 0] = 1
        features = feature.expand(num_queries, -1)
        alike = [replace(b, keys=feature.expand_as(b.keys)) for b in blocks]
        return self.query_losses(features, features, alike)[0]

    def collapsed_loss(
        self, num_steps: int = 0, batch_size: int = 0
    ) -> Tensor:
        """Return the mean loss if all features were the same.

        For UniCon that is ``log(1 + |N| |P|)``. A loss near this value means
        that the features tell no images apart. Queries are taken to be labeled
        as the keys of the queue are, of which 256 serve; ``exclude_own_keys``
        is left aside.

        Args:
            num_steps (int): If ``label_warmup`` is going on, the mean over
                so many of the last steps. Defaults to 0, the next step.
            batch_size (int): Batch of all ranks, whose keys are counted with
                ``in_batch_positives``. Defaults to 0, unknown.

        Returns:
            Tensor: Scalar.
        """
        queries = self._labels_like_queue(batch_size)

        def loss(uses_labels: bool) -> Tensor:
            labels = SampleLabels(queries.labels, None, uses_labels)
            block = replace(self._queue_block(labels), exclude_own=False)
            blocks = [block]
            if self.in_batch_positives and uses_labels:
                in_batch = replace(
                    block,
                    keys=self.queue[:1].expand(len(labels), -1),
                    key_labels=labels,
                    own_start=0,
                    never_positive=None,
                )
                blocks.append(in_batch)
            return self.collapsed_losses(len(labels), blocks).mean()

        if not getattr(self.loss_module, 'uses_labels', True):
            return loss(False)
        shares = [self._label_share(i) for i in range(1, num_steps + 1)]
        share = sum(shares) / num_steps if shares else self._label_share()
        if share >= 1:
            return loss(True)
        return torch.lerp(loss(False), loss(True), share)

    def _labels_like_queue(self, batch_size: int) -> SampleLabels:
        count = min(256, self.queue_len)
        if self.in_batch_positives and batch_size:
            count = batch_size
        rows = torch.arange(count, device=self.queue.device)
        return SampleLabels(self.label_queue[rows * self.queue_len // count])

    @property
    def steps_to_start(self) -> int:
        """Steps after which no option waits, or grows, any more."""
        start = self.propagation.start if self.propagation else 0
        return max(self.label_warmup, start)

    def _label_share(self, steps_ago: int = 0) -> float:
        """The share of labeled queries that use their label."""
        if not self.label_warmup:
            return 1.0
        step = max(self.step_count() - steps_ago, 0)
        return min(step / self.label_warmup, 1.0)

    def _key_blocks(
        self,
        samples: SampleLabels,
        batch_key: Tensor,
        batch: SampleLabels,
        batch_sizes: list[int],
    ) -> list[KeyBlock]:
        """Return all keys but the own ones."""
        own_start = sum(batch_sizes[: get_rank()])
        if not getattr(self.loss_module, 'uses_labels', True):
            samples = replace(samples, has_labels=False)
        elif self._label_share() < 1:
            samples = draw_labeled(
                samples,
                self._label_share(),
                self.step_count(),
                own_start,
                sum(batch_sizes),
            )
        queue = self._queue_block(samples)
        if not (self.in_batch_positives and samples.has_labels):
            return [queue]
        in_batch = replace(
            queue,
            keys=batch_key,
            key_labels=batch,
            own_start=own_start,
            never_positive=None,
        )
        return [queue, in_batch]

    def _queue_block(self, samples: SampleLabels) -> KeyBlock:
        """Return the keys of the queue."""
        labels, never_positive = self.key_labels(
            self.propagation and self.propagation.use, self.max_positives
        )
        indices = self.index_queue if self.exclude_own_keys else None
        return KeyBlock(
            self.queue,
            SampleLabels(labels, indices),
            samples,
            ignore_unlabeled=self.ignore_unlabeled_keys,
            exclude_own=self.exclude_own_keys,
            never_positive=never_positive,
        )

    def _choose_pass(
        self, query: Tensor, blocks: list[KeyBlock]
    ) -> Callable | None:
        """Return what computes the statistics; None for the matrix."""
        if not self.streamed or self._has_own_forward:
            return None
        if uses_kernels(self.fused, query.device):
            fused_pass = _import_fused_pass()
            if fused_pass.supports(query, blocks):
                return fused_pass.fused_statistics
        return streamed_statistics

    @property
    def _has_own_forward(self) -> bool:
        """Whether the loss is computed from the matrix of logits."""
        forward = getattr(type(self.loss_module), 'forward', None)
        return forward is not ContrastiveLoss.forward

    def _compute_losses(
        self,
        compute: Callable | None,
        query: Tensor,
        key: Tensor,
        blocks: list[KeyBlock],
    ) -> tuple[Tensor, PairMonitor]:
        if compute is None:
            return self._dense_losses(query, key, blocks)
        statistics, monitor = compute(
            query,
            key,
            blocks,
            self.temperature,
            self.positive_temperature,
            self.loss_module.statistics,
        )
        if 'own' in self.loss_module.statistics:
            dtype = torch.promote_types(query.dtype, torch.float32)
            similarity = (query.to(dtype) * key).sum(dim=1)
            statistics.own = similarity / self.positive_temperature
        return self.loss_module.from_statistics(statistics), monitor

    def _dense_losses(
        self, query: Tensor, key: Tensor, blocks: list[KeyBlock]
    ) -> tuple[Tensor, PairMonitor]:
        logits, positives, monitor = dense_pairs(
            query, key, blocks, self.temperature, self.positive_temperature
        )
        with torch.autocast(device_type=query.device.type, enabled=False):
            if self._has_own_forward:
                return self.loss_module(logits, positives), monitor
            return self.loss_module.losses(logits, positives), monitor

    def _gather(
        self,
        key: Tensor,
        samples: SampleLabels,
        batch_sizes: list[int] | None,
    ) -> tuple[Tensor, SampleLabels, list[int]]:
        """Return keys and labels of all ranks, from one collective."""
        key = key.detach().to(self.queue.dtype)
        if self.propagation is not None:
            samples = replace(
                samples, propagated=self._propagate(key, samples)
            )
        kept = {name: getattr(samples, name) for name in self._queues}
        if batch_sizes is None:
            batch_sizes = [n for (n,) in exchange_integers([len(key)])]
        batch_key, *rest = gather_tensors([key, *kept.values()], batch_sizes)
        batch = SampleLabels(**dict(zip(kept, rest, strict=True)))
        return batch_key, batch, batch_sizes

    def _propagate(self, key: Tensor, samples: SampleLabels) -> Tensor:
        """Return labels of unlabeled keys from the queue, shape (N,)."""
        if not samples.has_unlabeled or (
            self.step_count() < self.propagation.start
        ):
            return torch.full_like(samples.labels, UNLABELED)
        return self.propagation(
            key, samples.labels, self.queue, self.label_queue
        )

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
    return import_kernels(
        'fused_pass', 'UniMoCoHead.fused', 'model.head.fused'
    )


def _check_positive(name: str, value: object, kind: type) -> None:
    valid = isinstance(value, kind) and not isinstance(value, bool)
    if not valid or not value > 0:
        noun = 'an integer' if kind is Integral else 'a number'
        raise ValueError(
            f'UniMoCoHead.{name} must be {noun} > 0, but got {value!r}; '
            f'change model.head.{name}'
        )
