"""The head of UniMoCo: key and label queues, targets, log values."""

from numbers import Integral, Real

import torch
from mmengine.dist import get_rank
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor
from torch.nn import functional

from mmunimoco.utils.config_errors import check_type

from .comm import exchange_integers, upload
from .gather import gather_tensors
from .label_rules import BatchTargets, QueueTargets
from .labels import UNLABELED, SampleLabels, check_labels
from .loss_base import ContrastiveLoss
from .monitor import PairMonitor
from .pair_statistics import KeyBlock, streamed_statistics


@MODELS.register_module()
class UniMoCoHead(BaseModule):
    """Contrast queries with a queue of labeled and unlabeled keys.

    The queue of keys has a label queue beside it; comparing labels gives every
    query any number of positives (UniMoCo, arXiv 2103.10773): its own key, and
    each queue key of the same known label. All other queue keys are
    negatives. The loss is computed before the batch's keys are enqueued.

    Buffers, all in the checkpoint: ``queue`` (K, C), L2-normalised rows;
    ``label_queue`` (K,) int64, -1 for unlabeled, or (K, num_classes) bool if
    ``multi_label``; ``queue_ptr`` (1,) int64, the next place to write; with
    ``exclude_own_keys`` also ``index_queue`` (K,) int64, -1 for unknown. They
    start with random unlabeled keys, the same for every seed. In distributed
    training the keys of all ranks are enqueued, in the order of the ranks, on
    every rank.

    Args:
        feat_dim (int): Dimension C of query and key. Defaults to 128.
        queue_len (int): Number of keys K, at least 1. It need not be a
            multiple of the batch size, nor exceed it. Defaults to 65536.
        temperature (float): Divides the similarities. Defaults to 0.2.
        loss (dict): Config of the loss. A loss that is no
            :class:`ContrastiveLoss` is called as ``loss(logits, positives)``.
            Defaults to ``dict(type='UniConLoss')``.
        positive_temperature (float, optional): Divides the similarities of
            positives instead. Defaults to None, the same temperature.
        num_classes (int, optional): Declares the range of the labels; others
            raise. Required if ``multi_label``. Defaults to None.
        multi_label (bool): Whether a sample may have several classes. Two
            samples match if they share at least one. Defaults to False.
        in_batch_positives (bool): Whether keys of the same batch (of all
            ranks) with the query's label are positives too. They never are
            negatives. Defaults to False.
        ignore_unlabeled_keys (bool): Whether unlabeled keys, some of which
            may be of the query's class, are left out of the negatives of
            labeled queries. Defaults to False.
        exclude_own_keys (bool): Whether older keys of the query's own image
            are left out. Needs ``indices``. Defaults to False.
        streamed (bool): Whether to compute chunk by chunk over the queue, in
            memory that does not grow with K; False builds the (N, 1+K) matrix
            of logits, with the same result. Defaults to True.
        init_cfg (dict, optional): Initialization config. Defaults to None.

    Raises:
        ValueError: If an argument is of the wrong type or out of its range.
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
        self._create_queues(queue_len, feat_dim)

    def _create_queues(self, queue_len: int, feat_dim: int) -> None:
        # Its own generator: the ranks must start with the same queue, whatever
        # their seeds, and DDP does not share buffers.
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

    def loss(
        self,
        query: Tensor,
        key: Tensor,
        labels: Tensor,
        indices: Tensor | None = None,
        batch_sizes: list[int] | None = None,
    ) -> dict[str, Tensor]:
        """Compute loss and log values, then enqueue the keys.

        Args:
            query (Tensor): L2-normalised, shape (N, C), float.
            key (Tensor): L2-normalised, shape (N, C), float, of the same
                images as ``query``. Gets no gradient.
            labels (Tensor): Shape (N,), integer, -1 for unlabeled; if
                ``multi_label`` multi-hot of shape (N, num_classes), zeros for
                unlabeled. Best on the CPU: they are checked, and for labels
                on a GPU the host has to wait.
            indices (Tensor, optional): Identity of each image in the data
                set, shape (N,), int64, -1 for unknown. Required with
                ``exclude_own_keys``. Defaults to None.
            batch_sizes (list[int], optional): N of every rank, if the caller
                knows them. Defaults to None: the ranks tell each other.

        Returns:
            dict[str, Tensor]: Scalars: ``loss``, the log values of
            :meth:`PairMonitor.log_values`, and ``labeled_queue_share``, the
            share of labeled keys in the queue in percent.

        Raises:
            ValueError: If a shape does not fit, a label is out of range, or
                ``indices`` is needed and missing.
        """
        self._check_inputs(query, key, labels, indices)
        labels, any_known, any_unknown = check_labels(
            labels, self.num_classes, self.multi_label
        )
        device = query.device
        labels = upload(labels, device)
        indices = None if indices is None else upload(indices, device)
        # To a loss that ignores labels nobody is labeled.
        uses_labels = getattr(self.loss_module, 'uses_labels', True)
        samples = SampleLabels(labels, indices, any_known and uses_labels)
        batch_key, batch, sizes = self._gather(key, samples, batch_sizes)
        blocks = self._key_blocks(samples, batch_key, batch, sizes)
        compute = self._streamed_loss if self._can_stream else self._dense_loss
        loss, monitor = compute(query, key.detach(), blocks)
        log_values = monitor.log_values(samples.known, any_known, any_unknown)
        self._enqueue(batch_key, batch)
        share = SampleLabels(self.label_queue).known.float().mean()
        return dict(loss=loss, labeled_queue_share=100 * share, **log_values)

    @property
    def _can_stream(self) -> bool:
        return self.streamed and isinstance(self.loss_module, ContrastiveLoss)

    def _key_blocks(
        self,
        samples: SampleLabels,
        batch_key: Tensor,
        batch: SampleLabels,
        batch_sizes: list[int],
    ) -> list[KeyBlock]:
        """All keys but the own ones, with what each is to each query."""
        indices = self.index_queue if self.exclude_own_keys else None
        targets = QueueTargets(
            samples,
            SampleLabels(self.label_queue, indices),
            self.ignore_unlabeled_keys,
            self.exclude_own_keys,
        )
        blocks = [KeyBlock(self.queue, targets)]
        if self.in_batch_positives and samples.any_known:
            offset = sum(batch_sizes[: get_rank()])
            targets = BatchTargets(
                samples, batch, offset, self.exclude_own_keys
            )
            blocks.append(KeyBlock(batch_key, targets))
        return blocks

    def _streamed_loss(
        self, query: Tensor, key: Tensor, blocks: list[KeyBlock]
    ) -> tuple[Tensor, PairMonitor]:
        statistics, monitor = streamed_statistics(
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
                nothing = torch.zeros_like(similarity[-1], dtype=torch.bool)
                whole = slice(0, len(block.keys))
                for marked, mark in (
                    (positives, block.targets.positives),
                    (ignored, block.targets.ignored),
                ):
                    mask = mark(whole)
                    marked.append(nothing if mask is None else mask)
            similarity = torch.cat(similarity, dim=1)
            positives = torch.cat(positives, dim=1)
            ignored = torch.cat(ignored, dim=1)
            logits = torch.where(
                positives,
                similarity / self.positive_temperature,
                similarity / self.temperature,
            ).masked_fill(ignored, float('-inf'))
            loss = self.loss_module(logits, positives)
        monitor = PairMonitor.from_dense(similarity, positives, ignored)
        return loss, monitor

    def _gather(
        self,
        key: Tensor,
        samples: SampleLabels,
        batch_sizes: list[int] | None,
    ) -> tuple[Tensor, SampleLabels, list[int]]:
        """Keys, labels and indices of all ranks, in one collective."""
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

        Where a key is not finite the old one stays: it would be a negative of
        every query, and so poison all losses until it is overwritten.
        """
        places = torch.arange(len(keys), device=keys.device) + self.queue_ptr
        places = places[-self.queue_len :] % self.queue_len
        rows = [(self.queue, keys), (self.label_queue, samples.labels)]
        if self.exclude_own_keys:
            rows.append((self.index_queue, samples.indices))
        finite = keys[-self.queue_len :].isfinite().all(dim=1)
        for queue, new in rows:
            new = new[-self.queue_len :]
            mask = finite.reshape(-1, *[1] * (new.dim() - 1))
            queue[places] = torch.where(mask, new, queue[places])
        self.queue_ptr += len(keys)
        self.queue_ptr %= self.queue_len

    def _check_inputs(
        self,
        query: Tensor,
        key: Tensor,
        labels: Tensor,
        indices: Tensor | None,
    ) -> None:
        wanted = (len(query), self.queue.shape[1])
        if query.shape != wanted or key.shape != wanted or not len(query):
            raise ValueError(
                f'query and key must both have shape (N, {wanted[1]}) with '
                'N >= 1, where the second is UniMoCoHead.feat_dim, the '
                "neck's out_channels; but got "
                f'{tuple(query.shape)} and {tuple(key.shape)}'
            )
        wanted = wanted[:1] + ((self.num_classes,) if self.multi_label else ())
        if labels.shape != wanted:
            raise ValueError(
                f'labels must have shape {wanted} (multi_label='
                f'{self.multi_label}), but got {tuple(labels.shape)}'
            )
        if self.exclude_own_keys and indices is None:
            raise ValueError(
                'UniMoCoHead.exclude_own_keys=True needs the indices of the '
                'samples, but got None'
            )


def _check_positive(name: str, value: object, kind: type) -> None:
    # True would pass for 1.
    right = isinstance(value, kind) and not isinstance(value, bool)
    if not right or not value > 0:
        noun = 'an integer' if kind is Integral else 'a number'
        raise ValueError(
            f'UniMoCoHead.{name} must be {noun} > 0, but got {value!r}; '
            f'change model.head.{name}'
        )
