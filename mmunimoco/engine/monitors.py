"""Hooks that measure the features while a model is pre-trained."""

from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS, OPTIMIZERS
from torch import Tensor, nn
from torch.nn import functional

from mmunimoco.evaluation.features import pool
from mmunimoco.models.labels import KeyBlock, SampleLabels
from mmunimoco.models.log_values import masked_mean, mean_similarities
from mmunimoco.models.pair_statistics import PairMonitor
from mmunimoco.models.unimoco_head import UniMoCoHead
from mmunimoco.utils.checkpoint import bare_model

from .logs import is_logged


class _HeadObserver(Hook):
    """Base of hooks that see queries, keys and labels of each step."""

    # Before the LoggerHook.
    priority = 'NORMAL'

    def before_train(self, runner: Runner) -> None:
        """Ask the head for its batches; other heads are left alone."""
        self.head = getattr(bare_model(runner.model), 'head', None)
        if not isinstance(self.head, UniMoCoHead):
            self.head = None
        elif self.observe not in self.head.observers:
            self.head.observers.append(self.observe)

    def after_train(self, runner: Runner) -> None:
        """Leave the head as it was."""
        if self.head is not None:
            self.head.observers.remove(self.observe)

    def observe(
        self,
        query: Tensor,
        key: Tensor,
        samples: SampleLabels,
        blocks: list[KeyBlock],
    ) -> None:
        """Called by the head in each step, before it enqueues the keys."""
        raise NotImplementedError

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Measure, if something is logged."""
        if self.head is None or not is_logged(self, runner, batch_idx):
            return
        for name, value in self.measure(runner).items():
            runner.message_hub.update_scalar(f'train/{name}', float(value))

    def measure(self, runner: Runner) -> dict[str, Any]:
        """Return the values to log."""
        raise NotImplementedError


@HOOKS.register_module()
class FeatureMonitorHook(_HeadObserver):
    """Log what the features and the queue of a ``UniMoCoHead`` are like.

    Measured when something is logged, of the batch of the first process:

    - ``alignment_labeled``, ``alignment_unlabeled``: mean squared distance of
      a query and its own key, 0 (equal) to 4; and ``uniformity``: log of the
      mean of exp(-2 d²) over pairs of keys at distance d, 0 (all equal) to
      about -4. Lower is better for both (arXiv 2005.10242).
    - ``rankme``: effective rank of the keys, exp of the entropy of their
      normalised singular values (arXiv 2210.02885): 1 to C.
    - ``positive_similarity_labeled``, ``negative_similarity_labeled``, and
      the same ``_unlabeled``: mean cosine similarities over the pairs of
      labeled, and of unlabeled, queries.
    - ``queue_age``: mean age of the keys in batches, those of this batch 0.
    - ``queue_class_entropy``: of the classes in the queue, in nats; log of
      the number of classes if all are equally frequent.
    - ``collapse_gain``: how far the loss is below that of features that are
      all the same (``UniMoCoHead.collapsed_losses``); and of labeled and of
      unlabeled queries alone, ``collapse_gain_labeled`` and
      ``collapse_gain_unlabeled``, unless the loss has a ``forward`` of its
      own.

    The head logs positives a query and the labeled share of the queue,
    ``CollapseHook`` ``feature_std``, mmengine ``memory``.

    Args:
        num_keys (int): Newest keys of the queue that uniformity and RankMe
            are measured on, at least 2. Defaults to 2048.

    Raises:
        ValueError: If ``num_keys`` is less than 2.
    """

    def __init__(self, num_keys: int = 2048) -> None:
        if not isinstance(num_keys, int) or num_keys < 2:
            raise ValueError(
                'FeatureMonitorHook.num_keys must be an integer of 2 or more, '
                f'got {num_keys!r}'
            )
        self.num_keys = num_keys
        self._wanted, self._values = False, {}

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Measure the batch before its keys are enqueued, if it is logged."""
        self._wanted = is_logged(self, runner, batch_idx)

    @torch.no_grad()
    def observe(
        self,
        query: Tensor,
        key: Tensor,
        samples: SampleLabels,
        blocks: list[KeyBlock],
    ) -> None:
        """Measure the batch."""
        if not self._wanted:
            return
        losses, pairs = self.head.query_losses(query, key, blocks)
        gains = self.head.collapsed_losses(len(query), blocks) - losses
        self._values = dict(collapse_gain=gains.mean())
        self._batch_size = len(query)
        distances = (query.float() - key.float()).square().sum(dim=1)
        for name, mask in _by_labels(samples).items():
            marked = {field: x[mask] for field, x in vars(pairs).items()}
            means = mean_similarities(PairMonitor(**marked))
            means['alignment'] = masked_mean(distances, mask)
            if gains.dim():
                means['collapse_gain'] = masked_mean(gains, mask)
            for value in means:
                self._values[f'{value}_{name}'] = means[value]

    @torch.no_grad()
    def measure(self, runner: Runner) -> dict[str, Any]:
        """Return the values to log."""
        values, self._values = self._values, {}
        if not values:
            return {}
        keys = newest_keys(self.head, self.num_keys).float()
        if len(keys) > 1:
            values['uniformity'] = uniformity(keys)
            values['rankme'] = effective_rank(keys)
        steps = int(bare_model(runner.model).encoder_k.steps)
        batch_size = self._batch_size * get_world_size()
        values['queue_age'] = queue_age(self.head.queue_len, batch_size, steps)
        if SampleLabels(self.head.label_queue).known.any():
            values['queue_class_entropy'] = class_entropy(
                self.head.label_queue
            )
        return values


def _by_labels(samples: SampleLabels) -> dict[str, Tensor]:
    """Mark labeled and unlabeled queries, if the batch has any."""
    masks = {}
    if samples.has_labels:
        masks['labeled'] = samples.known
    if samples.has_unlabeled:
        masks['unlabeled'] = ~samples.known
    return masks


def newest_keys(head: UniMoCoHead, count: int) -> Tensor:
    """Return the ``count`` newest keys of the queue, the newest first."""
    count = min(count, head.queue_len)
    ages = torch.arange(count, device=head.queue.device)
    return head.queue[(head.queue_ptr - 1 - ages) % head.queue_len]


def uniformity(features: Tensor) -> Tensor:
    """Log of the mean Gaussian potential (Wang and Isola, 2005.10242).

    Args:
        features (Tensor): L2-normalised, shape (N, C), N >= 2.

    Returns:
        Tensor: Scalar, 0 for features that are all the same.
    """
    squared = functional.pdist(features).square()
    return (-2 * squared).logsumexp(dim=0) - torch.tensor(len(squared)).log()


def effective_rank(features: Tensor) -> Tensor:
    """Effective rank (RankMe, Garrido et al., 2210.02885).

    Args:
        features (Tensor): Shape (N, C), float.

    Returns:
        Tensor: Scalar, from 1 to min(N, C).
    """
    values = torch.linalg.svdvals(features)
    shares = values / values.sum()
    # x log x is 0 at 0.
    return torch.special.entr(shares).sum().exp()


def queue_age(queue_len: int, batch_size: int, steps: int) -> float:
    """Mean age in batches of the keys that were enqueued.

    Args:
        queue_len (int): Number of keys.
        batch_size (int): Keys enqueued in each step, by all processes.
        steps (int): Steps so far.
    """
    ages = torch.arange(min(queue_len, batch_size * steps)) // batch_size
    return ages.double().mean().item()


def class_entropy(labels: Tensor) -> Tensor:
    """Entropy of the frequencies of the classes, in nats.

    Args:
        labels (Tensor): Shape (K,), int64, -1 for unlabeled; or multi-hot,
            (K, num_classes), bool. At least one is labeled.

    Returns:
        Tensor: Scalar.
    """
    if labels.dim() == 2:
        counts = labels.sum(dim=0)
    else:
        counts = labels[labels >= 0].unique(return_counts=True)[1]
    return torch.special.entr(counts / counts.sum()).sum()


@HOOKS.register_module()
class OnlineProbeHook(_HeadObserver):
    """Train a linear classifier beside the backbone, without gradient to it.

    It sees the pooled features of the query views as they are computed, so
    it costs no forward pass. ``probe_top1`` is its accuracy, in percent, on
    the labeled queries since the last log line, each before the classifier
    was trained on it. These are augmented training images: compare runs by it,
    and take kNN for validation images.

    The classifier starts at zero and draws no random numbers, so training is
    the same with and without it. Its weights and optimizer are in the
    checkpoints of ``ExactCheckpointHook``.

    Args:
        num_classes (int, optional): Defaults to None,
            ``model.head.num_classes``, or else the classes of the dataset.
        optimizer (dict, optional): Config of its optimizer. Defaults to
            ``dict(type='AdamW', lr=0.001, weight_decay=0.0)``.

    Raises:
        ValueError: If the number of classes is unknown or too small, or
            images have several labels.
    """

    def __init__(
        self, num_classes: int | None = None, optimizer: dict | None = None
    ) -> None:
        self.num_classes = num_classes
        self.optimizer_cfg = optimizer or dict(
            type='AdamW', lr=0.001, weight_decay=0.0
        )
        self.probe: nn.Linear | None = None
        self._features: Tensor | None = None
        self._handle: Any = None
        self._loaded: dict | None = None

    def before_train(self, runner: Runner) -> None:
        """Watch the backbone.

        Raises:
            ValueError: See the class.
        """
        super().before_train(runner)
        if self.head is None:
            return
        if self.head.multi_label:
            raise ValueError(
                'OnlineProbeHook needs one label an image: remove it from '
                'custom_hooks, or set model.head.multi_label=False'
            )
        self.num_classes = self._find_classes(runner)
        backbone = bare_model(runner.model).backbone
        self._handle = backbone.register_forward_hook(self._keep)

    def after_train(self, runner: Runner) -> None:
        """Leave backbone and head as they were."""
        super().after_train(runner)
        if self._handle is not None:
            self._handle.remove()

    def _find_classes(self, runner: Runner) -> int:
        dataset = runner.train_dataloader.dataset
        classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
        known = self.head.num_classes or (len(classes) if classes else None)
        found = self.num_classes or known
        if not isinstance(found, int) or found < max(known or 1, 1):
            raise ValueError(
                f'OnlineProbeHook.num_classes is {self.num_classes}, but it '
                f'must be the number of classes ({known or "unknown"} by '
                'model.head.num_classes and the dataset): set it'
            )
        return found

    def _keep(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        if module.training and torch.is_grad_enabled():
            self._features = pool(outputs).detach()

    def observe(
        self,
        query: Tensor,
        key: Tensor,
        samples: SampleLabels,
        blocks: list[KeyBlock],
    ) -> None:
        """Train on the batch that has just passed through the backbone."""
        features, self._features = self._features, None
        if features is None:
            return
        if self.probe is None:
            self._build(features)
        labels = samples.labels
        self._highest = torch.maximum(self._highest, labels.max())
        # NonFiniteLossHook skips such a batch; this must not spoil the probe.
        used = features.isfinite().all(dim=1) & samples.known
        used &= labels < self.num_classes
        features = torch.where(used.unsqueeze(1), features, 0)
        self._step(features, labels.masked_fill(~used, -1), used)

    def _build(self, features: Tensor) -> None:
        # skip_init draws no random numbers.
        self.probe = nn.utils.skip_init(
            nn.Linear, features.shape[1], self.num_classes
        ).to(features.device)
        for parameter in self.probe.parameters():
            nn.init.zeros_(parameter)
        self.optimizer = OPTIMIZERS.build(
            dict(params=list(self.probe.parameters()), **self.optimizer_cfg)
        )
        self._totals = torch.zeros(2, device=features.device)
        self._highest = torch.tensor(-1, device=features.device)
        if self._loaded is not None:
            self.load_state_dict(self._loaded)

    def _step(self, features: Tensor, labels: Tensor, used: Tensor) -> None:
        """One step on the labeled images of all processes."""
        parameters = list(self.probe.parameters())
        device = features.device.type
        with torch.enable_grad(), torch.autocast(device, enabled=False):
            logits = self.probe(features)
            loss = functional.cross_entropy(
                logits, labels, ignore_index=-1, reduction='sum'
            )
            gradients = torch.autograd.grad(loss, parameters)
        hits = (logits.argmax(dim=1) == labels) & used
        sums = torch.cat(
            [x.flatten() for x in gradients]
            + [torch.stack([hits.sum(), used.sum()]).float()]
        )
        all_reduce(sums)
        self._totals += sums[-2:]
        parts = sums[:-2] / sums[-1].clamp(min=1)
        parts = parts.split([p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        self.optimizer.step()

    def measure(self, runner: Runner) -> dict[str, Any]:
        """Return the accuracy since the last call."""
        if self.probe is None:
            return {}
        hits, count = self._totals.tolist()
        self._totals.zero_()
        if self._highest >= self.num_classes:
            raise ValueError(
                f'a label is {int(self._highest)}, but '
                f'OnlineProbeHook.num_classes is {self.num_classes}: set it '
                'to the number of classes'
            )
        return dict(probe_top1=100 * hits / count) if count else {}

    def state_dict(self) -> dict:
        """Weights, optimizer and counts, for the checkpoint."""
        if self.probe is None:
            return self._loaded or {}
        return dict(
            probe=dict(self.probe.state_dict()),
            optimizer=self.optimizer.state_dict(),
            totals=self._totals,
        )

    def load_state_dict(self, state: dict) -> None:
        """Go on from a checkpoint, once the features are known."""
        self._loaded = state or None
        if self.probe is None or not state:
            return
        self.probe.load_state_dict(state['probe'])
        self.optimizer.load_state_dict(state['optimizer'])
        self._totals.copy_(state['totals'])
        self._loaded = None
