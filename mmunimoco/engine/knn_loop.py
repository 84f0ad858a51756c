"""Loops that validate or test a backbone by weighted kNN."""

from typing import Any

import torch
from mmengine.dataset import DefaultSampler
from mmengine.dist import all_gather_object, all_reduce, get_dist_info
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner, TestLoop, ValLoop
from mmpretrain.registry import LOOPS
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

from mmunimoco.datasets.class_names import check_classes_agree
from mmunimoco.datasets.skip_broken import (
    broken_files,
    check_broken,
    list_broken,
    replaced_files,
    skip_limit,
)
from mmunimoco.evaluation.features import (
    count_not_finite,
    evaluating,
    extract_batch,
    labels_of,
    not_finite_text,
)
from mmunimoco.evaluation.knn import check_k, knn_neighbours, vote
from mmunimoco.evaluation.metrics import fit_topk, process_scores
from mmunimoco.utils.checkpoint import bare_model
from mmunimoco.utils.config_errors import named_field

from .images_on_device import KeptBatches

_SCORES_AT_ONCE = 2**24  # 64 MB


class KNNLoopMixin:
    """Base of :class:`KNNValLoop` and :class:`KNNTestLoop`.

    Features are the global average of the backbone's last stage (for a ViT
    what its ``out_type`` says), L2-normalised. Each process extracts its
    share of the bank and of the queries; the bank stays distributed, the
    queries are gathered once. Bank samples without a label are ignored.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): The queries, all of them labeled.
        evaluator (Evaluator | dict | list): Evaluates data samples with
            ``gt_label``, ``pred_score`` and ``pred_label``; for example
            mmpretrain's ``Accuracy``, which gets the scores of the best
            classes alone, and whose ``topk`` of more classes than there are
            are left out. Other metrics get all, and those that keep them
            need memory for samples x classes.
        bank_dataloader (DataLoader | dict): The labeled samples that vote.
            ``collate_fn`` and an unshuffled ``sampler`` are added if missing.
        k (int | Sequence[int]): Number of neighbours. Several share one
            pass: metrics of the first keep their name (``knn/top1``), those
            of the others get a suffix (``knn/top1_k200``). Defaults to 20.
        temperature (float): A neighbour votes with exp(cos / temperature).
            Defaults to 0.07.
        fp16 (bool): Extract features under autocast. Defaults to False.
        bank_dtype (str): Dtype of the bank, which is kept on the CPU:
            'float32' or 'float16'. Defaults to 'float32'.
        query_chunk (int): Queries compared at a time. Defaults to 4096.
        bank_chunk (int): Bank entries compared at a time. Defaults to 65536.
        images_on_device (bool): Keep all images of bank and queries on the
            device from the first run on, as their pipelines gave them, which
            do not run again: for data sets such as CIFAR. Defaults to False.

    Raises:
        ValueError: If k is larger than the bank, the bank has no labeled
            sample, a query has no label, class ids of bank and queries do not
            mean the same, or an option is out of range.
    """

    stage: str

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        bank_dataloader: DataLoader | dict,
        k: int | list[int] | tuple[int, ...] = 20,
        temperature: float = 0.07,
        fp16: bool = False,
        bank_dtype: str = 'float32',
        query_chunk: int = 4096,
        bank_chunk: int = 65536,
        images_on_device: bool = False,
    ) -> None:
        with named_field(f'{self.stage}_dataloader'):
            if isinstance(dataloader, dict):
                dataloader = runner.build_dataloader(
                    dataloader, seed=runner.seed
                )
        super().__init__(runner, dataloader, evaluator, fp16)
        self.k = (k,) if isinstance(k, int) else tuple(k)
        self.temperature = temperature
        self.chunks = dict(query_chunk=query_chunk, bank_chunk=bank_chunk)
        dtypes = dict(float32=torch.float32, float16=torch.float16)
        if bank_dtype not in dtypes or temperature <= 0:
            raise ValueError(
                f'{self.stage}_cfg needs bank_dtype in {tuple(dtypes)} and a '
                f'positive temperature, got bank_dtype={bank_dtype!r} and '
                f'temperature={temperature}.'
            )
        self.bank_dtype = dtypes[bank_dtype]
        with named_field(f'{self.stage}_cfg.bank_dataloader'):
            self.bank_dataloader = _build_bank(runner, bank_dataloader)
        check_classes_agree(
            {
                f'{self.stage}_dataloader.dataset': self.dataloader.dataset,
                f'{self.stage}_cfg.bank_dataloader.dataset': (
                    self.bank_dataloader.dataset
                ),
            }
        )
        _check_hooks(runner)
        self._bank_batches = self.bank_dataloader
        self._query_batches = self.dataloader
        if images_on_device:
            device = bare_model(runner.model).data_preprocessor.device
            self._bank_batches = KeptBatches(self.bank_dataloader, device)
            self._query_batches = KeptBatches(self.dataloader, device)
        # Known already: fail before the first epoch, not after it.
        self._check_k(len(self.bank_dataloader.dataset))

    def run(self) -> dict:
        """Extract features, vote, and evaluate.

        Returns:
            dict: The metrics, as passed to the hooks.
        """
        self.runner.call_hook(f'before_{self.stage}')
        self.runner.call_hook(f'before_{self.stage}_epoch')
        metrics = self.measure()
        self.runner.call_hook(f'after_{self.stage}_epoch', metrics=metrics)
        self.runner.call_hook(f'after_{self.stage}')
        return metrics

    def measure(self, call_hooks: bool = True) -> dict:
        """Do what :meth:`run` does, without the hooks around it.

        Args:
            call_hooks (bool): Whether to call the hooks of iterations.
                Defaults to True.

        Returns:
            dict: The metrics.
        """
        with evaluating(self.runner.model):
            bank, bank_labels = self._extract_bank()
            queries, samples = self._extract_queries(call_hooks)
        self._check_finite(bank, f'{self.stage}_cfg.bank_dataloader')
        self._check_finite(queries, f'{self.stage}_dataloader')
        num_classes = self._num_classes(bank_labels)
        fit_topk(
            self.evaluator.metrics, num_classes, f'{self.stage}_evaluator'
        )
        similarities, labels = knn_neighbours(
            queries, bank, bank_labels, max(self.k), **self.chunks
        )
        return self._evaluate(samples, similarities, labels, num_classes)

    def _extract_bank(self) -> tuple[Tensor, Tensor]:
        """Features (m, D) and labels (m,) of this process's labeled share."""
        loader, seen, kept = self.bank_dataloader, 0, 0
        rank, world_size = get_dist_info()
        bank, labels, broken = torch.empty(0), [], {}
        for index, data_batch in enumerate(self._bank_batches):
            features, samples = extract_batch(
                self.runner.model, data_batch, self.fp16
            )
            batch_labels = labels_of(samples)
            # The sampler repeats samples to give processes equal shares; a
            # repeated one would vote twice.
            position = torch.arange(seen, seen + len(samples))
            keep = position * world_size + rank < len(loader.dataset)
            keep &= batch_labels >= 0
            # A sample that replaces a broken one votes in its own place.
            keep &= ~torch.tensor(
                [bool(replaced_files(sample)) for sample in samples]
            )
            broken.update(broken_files(data_batch))
            if index == 0:
                bank = torch.empty(
                    (len(loader.sampler), features.shape[1]),
                    dtype=self.bank_dtype,
                )
            chosen = normalize(features, dim=1)[keep.to(features.device)]
            bank[kept : kept + len(chosen)] = chosen.to('cpu', self.bank_dtype)
            labels.append(batch_labels[keep])
            seen, kept = seen + len(samples), kept + len(chosen)
            if (index + 1) % 100 == 0:
                self.runner.logger.info(
                    f'kNN bank: batch {index + 1} of {len(loader)}'
                )
        self._report_bank(kept, broken)
        return bank[:kept], torch.cat(labels)

    @staticmethod
    def _check_finite(features: Tensor, field: str) -> None:
        """Refuse NaN, whose similarities have no order."""
        total = _reduced(count_not_finite(features), 'sum')
        if total:
            raise ValueError(f'{field}: {not_finite_text(total)}')

    def _report_bank(self, kept: int, broken: dict[str, str]) -> None:
        """Log the size of the bank, and refuse one that is too small."""
        for found in all_gather_object(broken):
            broken = broken | found
        check_broken(broken, skip_limit(self.bank_dataloader.dataset))
        if broken:
            self.runner.logger.warning(
                f'kNN bank: {len(broken)} broken files are ignored:'
                f'{list_broken(broken)}'
            )
        total = len(self.bank_dataloader.dataset) - len(broken)
        labeled = _reduced(kept, 'sum')
        unlabeled = total - labeled
        if labeled == 0:
            raise ValueError(
                'no sample of the kNN bank has a label: give '
                f'{self.stage}_cfg.bank_dataloader a labeled data set.'
            )
        self._check_k(labeled)
        self.runner.logger.info(
            f'kNN bank: {labeled} labeled samples'
            + (f', {unlabeled} without a label ignored' if unlabeled else '')
        )

    def _extract_queries(
        self, call_hooks: bool
    ) -> tuple[Tensor, list[DataSample]]:
        """Features (n, D) and data samples of this process's queries."""
        features, samples = [], []
        for index, data_batch in enumerate(self._query_batches):
            call = dict(batch_idx=index, data_batch=data_batch)
            if call_hooks:
                self.runner.call_hook(f'before_{self.stage}_iter', **call)
            batch_features, outputs = extract_batch(
                self.runner.model, data_batch, self.fp16
            )
            if (labels_of(outputs) < 0).any():
                raise ValueError(
                    'kNN accuracy needs labeled queries, but '
                    f'{self.stage}_dataloader gives some without a label.'
                )
            features.append(normalize(batch_features, dim=1))
            samples.extend(outputs)
            if call_hooks:
                self.runner.call_hook(
                    f'after_{self.stage}_iter', **call, outputs=outputs
                )
        return torch.cat(features), samples

    def _num_classes(self, bank_labels: Tensor) -> int:
        """Number of classes, from metainfo or else from the largest label."""
        largest = _reduced(int(bank_labels.max()) if len(bank_labels) else -1)
        dataset = self.bank_dataloader.dataset
        classes = getattr(dataset, 'metainfo', {}).get('classes')
        if classes is None:
            return largest + 1
        if largest >= len(classes):
            raise ValueError(
                f'the kNN bank has label {largest} but only {len(classes)} '
                f'classes; check {self.stage}_cfg.bank_dataloader.dataset.'
            )
        return len(classes)

    def _evaluate(
        self,
        samples: list[DataSample],
        similarities: Tensor,
        labels: Tensor,
        num_classes: int,
    ) -> dict:
        """Let the neighbours vote, and run the evaluator, once for each k."""
        metrics = {}
        # All queries have N x C scores; only those of a chunk exist at once.
        chunk = max(1, _SCORES_AT_ONCE // num_classes)
        # The first k last: a file that a metric writes is then that of the k
        # which the metrics are named after.
        for k in reversed(self.k):
            for start in range(0, len(samples), chunk):
                window = slice(start, start + chunk)
                scores = vote(
                    similarities[window, :k],
                    labels[window, :k],
                    num_classes,
                    self.temperature,
                )
                process_scores(self.evaluator, samples[window], scores.cpu())
            results = self.evaluator.evaluate(len(self.dataloader.dataset))
            suffix = '' if k == self.k[0] else f'_k{k}'
            results = {name + suffix: v for name, v in results.items()}
            metrics = {**results, **metrics}
        return metrics

    def _check_k(self, bank_size: int) -> None:
        check_k(self.k, bank_size, field=f'{self.stage}_cfg.k')


@LOOPS.register_module()
class KNNValLoop(KNNLoopMixin, ValLoop):
    """Validation by weighted kNN during pre-training.

    The interval is the train loop's ``val_interval``::

        val_cfg = dict(type='KNNValLoop', k=(20, 200), temperature=0.07,
                       bank_dataloader=dict(...))
        val_evaluator = dict(type='Accuracy', topk=(1, 5), prefix='knn')
        default_hooks = dict(checkpoint=dict(save_best='knn/top1'))

    For the arguments see :class:`KNNLoopMixin`.
    """

    stage = 'val'


@LOOPS.register_module()
class KNNTestLoop(KNNLoopMixin, TestLoop):
    """Weighted kNN of a checkpoint, run by ``tools/test.py``.

    For the arguments see :class:`KNNLoopMixin`.
    """

    stage = 'test'


def _check_hooks(runner: Runner) -> None:
    """Refuse a hook that would run the loop in another way."""
    for hook in runner.hooks:
        names = ('evaluate_on_ema', 'evaluate_on_origin')
        if all(getattr(hook, name, False) for name in names):
            raise ValueError(
                f'{type(hook).__name__}(evaluate_on_origin=True) evaluates '
                'the original model by steps that kNN does not have: set '
                'evaluate_on_origin=False, and test the original weights '
                'afterwards, or evaluate_on_ema=False'
            )


def _build_bank(runner: Runner, dataloader: DataLoader | dict) -> DataLoader:
    """Build the loader of the bank, with a sampler that can be undone."""
    if isinstance(dataloader, dict):
        dataloader = dict(dataloader)
        dataloader.setdefault('collate_fn', dict(type='default_collate'))
        dataloader.setdefault(
            'sampler', dict(type='DefaultSampler', shuffle=False)
        )
        dataloader['dataset'] = _skipping(runner, dataloader['dataset'])
    loader = runner.build_dataloader(dataloader, seed=runner.seed)
    _, world_size = get_dist_info()
    if world_size > 1 and not isinstance(loader.sampler, DefaultSampler):
        raise ValueError(
            'with several processes the kNN bank needs '
            "sampler=dict(type='DefaultSampler', shuffle=False), got "
            f'{type(loader.sampler).__name__}.'
        )
    return loader


def _skipping(runner: Runner, dataset: Any) -> Any:
    """The dataset of the bank, which skips as many files as training may."""
    # Still a config if nothing is trained.
    loader = getattr(runner._train_loop, 'dataloader', None)
    limit = skip_limit(getattr(loader, 'dataset', None))
    if not limit or not isinstance(dataset, dict):
        return dataset
    return dict(
        type='SkipBrokenImages',
        max_broken=limit,
        dataset=dataset,
    )


def _reduced(value: int, operation: str = 'max') -> int:
    """Reduce one integer over all processes."""
    tensor = torch.tensor(value)
    all_reduce(tensor, operation)
    return int(tensor)
