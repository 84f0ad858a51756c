"""Checks before a run starts, of what otherwise fails late or not at all."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from mmpretrain.registry import HOOKS
from torch import nn

from mmunimoco.datasets.class_names import check_classes_agree
from mmunimoco.datasets.encoded_crops import check_collate
from mmunimoco.datasets.pipelines import check_loaders
from mmunimoco.evaluation.metrics import fit_topk
from mmunimoco.utils.checkpoint import (
    bare_model,
    check_complete,
    check_match,
    compare_state,
    describe_prefixes,
    shorten,
    state_dict_of,
)
from mmunimoco.utils.normalization import (
    for_files,
    normalization_of_checkpoint,
    normalization_of_config,
)
from mmunimoco.utils.safe_load import read_checkpoint

from ..exact.process_state import on_main_process
from ..knn_loop import KNNLoopMixin, KNNTestLoop, KNNValLoop
from ..pretrained_init import NO_CHECKPOINT
from ..schedules import SCALED, as_text, scaled_options
from .channel_order import warn_of_channel_order
from .classes import (
    check_class_names,
    check_labels,
    warn_of_folders,
)
from .config_fields import check_merged_fields
from .config_values import (
    ADVICE,
    Sizes,
    advise,
    check_accumulation,
)
from .masks import (
    check_mask_values,
    check_masks,
    check_segmentation_heads,
)
from .resume_changes import check_resumed_config
from .work_folder import REFUSED, is_in, lock_folder, refuse_checkpoints

_TRAIN = 'train_dataloader.dataset'
_VAL = 'val_dataloader.dataset'
_BANK = 'val_cfg.bank_dataloader.dataset'


@HOOKS.register_module()
class PreflightHook(Hook):
    """Stop a run, or warn, before it starts on something that does not fit.

    A check that does not apply to the model or the dataset does nothing, so
    one hook serves pre-training, classification, detection (mmdet) and
    segmentation (mmseg). It is an error if:

    - a name in the config is a misspelt or misplaced field, which nothing
      would read;
    - another run is training in the work folder, or a new run, or one that
      resumes from a file elsewhere, finds checkpoints of an earlier one there;
    - a checkpoint that training starts from lacks a tensor of the backbone,
      or one that it resumes from any tensor, or has it in another shape.
      mmengine loads leniently and would go on with random weights;
    - a checkpoint to test lacks a tensor of the model (for ``KNNTestLoop``,
      of the backbone), or has it in another shape;
    - a pipeline has no transform that loads the images;
    - the training data has labels of ``model.head.num_classes`` or more;
    - a class id means another class in validation (or in the test) than in
      training, or in another part of the training data, by the names of the
      classes. (The kNN loops compare their bank and their queries.)
    - ``metainfo.classes`` of your own does not fit the annotations of a COCO
      or VOC dataset: mmdet drops such objects, or swaps classes, silently;
    - a segmentation head has another number of classes than the dataset, or
      a mask (of each batch, also in validation and testing) has a class that
      the head does not have;
    - in masks of your own all foreground is 255, which mmseg ignores;
    - ``total_steps`` of a ``OneCycleLR`` are fewer than those of the run.

    It warns if:

    - the folder of a ``CustomDataset`` has images that are left out, or
      sub-folders that look like no classes;
    - red is taken for blue: images, statistics and colour operations have
      different orders of channels;
    - images are normalised differently than in pre-training, as far as the
      pre-trained checkpoint records it;
    - a class of your own occurs in none of (at most 200) masks;
    - the schedule counts iterations, for another batch size than this run's;
    - there are fewer classes than a top-k accuracy asks for, which is left
      out;
    - the queue is as long as the dataset, the schedule does not end with the
      run, the learning rate is for another batch size, plain batch norm on
      one process leaks between query and key or gets a last batch of one
      image, or kNN needs more memory than there is (:mod:`.config_values`).

    Args:
        allow_missing (Sequence[str]): Names, or prefixes of names, that a
            checkpoint to start from lacks by design. Defaults to none.
        accept (Sequence[str]): Warnings of the last item that are not given,
            because it is so on purpose: 'queue', 'schedule', 'learning rate',
            'batch norm', 'memory'. Defaults to none.
    """

    priority = 'VERY_HIGH'

    def __init__(
        self, allow_missing: Sequence[str] = (), accept: Sequence[str] = ()
    ) -> None:
        if isinstance(allow_missing, str):
            allow_missing = (allow_missing,)
        self.allow_missing = tuple(allow_missing)
        self.accept = (accept,) if isinstance(accept, str) else tuple(accept)
        unknown = set(self.accept) - set(ADVICE)
        if unknown:
            raise ValueError(
                f'PreflightHook.accept takes {", ".join(ADVICE)}, got '
                f'{", ".join(sorted(unknown))}'
            )
        self._loaded: dict | None = None
        self._trained_on: Any = None  # a dataset, or the names of its classes
        self._lock: IO | None = None
        self._entered = False

    def before_run(self, runner: Runner) -> None:
        """Check names in the config, lock the work folder if the run trains.

        Raises:
            ValueError: If nothing reads a field that resembles another.
            BlockingIOError: If another run is training there.
            FileExistsError: If the run is new, or comes from elsewhere, and
                the folder is not.
        """
        check_merged_fields(runner.cfg)
        # A config if only tested; entered already if tested after training.
        trains = isinstance(runner._train_loop, BaseLoop)
        if trains and not self._entered:
            self._entered = True
            on_main_process(lambda: self._enter(runner))

    def _enter(self, runner: Runner) -> None:
        folder = Path(runner.work_dir)
        self._lock = lock_folder(folder)
        (folder / REFUSED).unlink(missing_ok=True)
        source = runner._load_from  # None: the last one here
        if not runner._resume or (source and not is_in(source, folder)):
            refuse_checkpoints(folder)

    def after_run(self, runner: Runner) -> None:
        """Let other runs into the work folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check a checkpoint that was read but is not in the model yet.

        Raises:
            ValueError: If it fills no parameter of the model; if a run
                resumes from it, unless it fills all of the model and the
                config has changed only where that has an effect.
        """
        self._loaded = state_dict_of(checkpoint, unwrap=True)
        meta = checkpoint.get('meta') or {}
        self._trained_on = (meta.get('dataset_meta') or {}).get('classes')
        model = bare_model(runner.model)
        if runner._resume:
            self._check(model, 'the checkpoint to resume from', part='')
            check_resumed_config(runner, meta)
        else:  # to test or to start from, which need different parts
            check_match(model, self._loaded, 'the checkpoint')

    def before_train(self, runner: Runner) -> None:
        """Check the training and validation data, then compare with the past.

        Raises:
            ValueError: If a checkpoint to start from, pipelines, labels,
                class names, masks, segmentation heads or the length of a
                schedule do not fit.
        """
        model = bare_model(runner.model)
        if self._loaded is not None:
            self._check(model, 'the checkpoint to start from (load_from)')
            self._loaded = None  # training fills what was missing
        datasets = _datasets_of(runner)
        dataset = self._trained_on = datasets[_TRAIN]
        check_loaders(datasets)
        check_collate(runner.train_dataloader)
        check_labels(model, dataset)
        if _BANK in datasets:  # compared with _VAL by the loop
            check_classes_agree({_TRAIN: dataset})
        else:
            check_classes_agree(datasets)
        check_segmentation_heads(model, dataset)
        check_mask_values(model, datasets)
        check_class_names(dataset, training=True)
        if _VAL in datasets:
            check_class_names(datasets[_VAL], training=False)
        head = getattr(model, 'head', None)
        fit_topk([head], getattr(head, 'num_classes', None), 'model.head')
        if not is_main_process():
            return
        warn_of_folders(datasets)
        preprocessor = getattr(model, 'data_preprocessor', None)
        warn_of_channel_order(runner.cfg, preprocessor, datasets)
        for path in _init_checkpoints(model):
            runner.logger.log(*_compare_normalization(runner.cfg, path))
        warning = _compare_schedule(runner.cfg, runner.world_size)
        if warning:
            runner.logger.warning(warning)
        scaled_by = getattr(runner, 'auto_scale_lr', None) or {}
        for advice in (
            *advise(runner.cfg, model, _sizes(runner, datasets)),
            check_accumulation(runner.cfg, scaled_by),
        ):
            if advice is None or advice.name in self.accept:
                continue
            text = f'{advice.text}. Fix: {advice.fix}.'
            if advice.stops:
                raise ValueError(text)
            runner.logger.warning(text)

    def _check(
        self, model: nn.Module, source: str, part: str | None = None
    ) -> None:
        check_complete(
            model,
            self._loaded,
            source,
            self.allow_missing,
            'allow_missing of PreflightHook (custom_hooks)',
            part,
        )

    def before_val(self, runner: Runner) -> None:
        """Leave out top-k accuracies of more classes than there are."""
        fit_topk_to_head(runner, 'val')

    def before_test(self, runner: Runner) -> None:
        """Check that the loaded checkpoint fills all that is tested.

        Raises:
            ValueError: If a tensor is missing or has another shape, or the
                classes are not those of training.
        """
        fit_topk_to_head(runner, 'test')
        # kNN looks at the backbone alone.
        is_knn = isinstance(runner.test_loop, KNNTestLoop)
        model = bare_model(runner.model)
        if not is_knn:
            self._check_tested_data(model, runner)
        if self._loaded is None:
            return
        match = compare_state(model, self._loaded)
        runner.logger.info(
            f'The checkpoint to test fills {len(match.matched)} of '
            f'{len(model.state_dict())} tensors of the model; '
            f'{len(match.unused)} of its own are not used.'
        )
        tested = 'backbone.' if is_knn else ''
        faults = [
            name
            for name in match.missing + match.misshapen
            if name.startswith(tested)
        ]
        if faults:
            raise ValueError(
                f'the checkpoint to test lacks {len(faults)} tensors of the '
                f'model: {shorten(faults)}. The prefixes in it are '
                f'{describe_prefixes(self._loaded)}. Test a checkpoint that '
                'was fine-tuned with this config and the same classes (a '
                'pre-trained one has no head).'
            )

    def _check_tested_data(self, model: nn.Module, runner: Runner) -> None:
        tested = {'test_dataloader.dataset': runner.test_dataloader.dataset}
        check_classes_agree({'the training data': self._trained_on, **tested})
        check_mask_values(model, tested)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Mapping | None = None
    ) -> None:
        """Check the masks of a batch while they are on the CPU.

        Raises:
            ValueError: If a mask has a class that the heads do not have.
        """
        check_masks(bare_model(runner.model), data_batch)

    before_val_iter = before_train_iter
    before_test_iter = before_train_iter


def _datasets_of(runner: Runner) -> dict[str, Any]:
    """The datasets of training and validation, by their field."""
    datasets = {_TRAIN: runner.train_dataloader.dataset}
    if runner.val_loop is not None:
        datasets[_VAL] = runner.val_dataloader.dataset
        if isinstance(runner.val_loop, KNNValLoop):
            datasets[_BANK] = runner.val_loop.bank_dataloader.dataset
    return datasets


def _sizes(runner: Runner, datasets: Mapping[str, Any]) -> Sizes:
    """Numbers of images of a run."""
    bank = len(datasets.get(_BANK, ()))
    queries = len(datasets[_VAL]) if bank else 0
    return Sizes(len(datasets[_TRAIN]), runner.world_size, bank, queries)


def fit_topk_to_head(runner: Runner, stage: str) -> None:
    """Fit the metrics of a classifier; kNN knows its classes by itself."""
    loop = getattr(runner, f'{stage}_loop')
    if isinstance(loop, KNNLoopMixin) or not hasattr(loop, 'evaluator'):
        return
    model = bare_model(runner.model)
    # Test-time augmentation wraps the classifier.
    head = getattr(getattr(model, 'module', model), 'head', None)
    num_classes = getattr(head, 'num_classes', None)
    fit_topk(loop.evaluator.metrics, num_classes, f'{stage}_evaluator')


def _init_checkpoints(model: nn.Module) -> list[str]:
    """Checkpoints that parts of a model are initialised from, each once."""
    paths = {}
    for module in model.modules():
        config = getattr(module, 'init_cfg', None)
        for one in config if isinstance(config, list) else [config]:
            if isinstance(one, Mapping) and one.get('checkpoint'):
                paths[one['checkpoint']] = None
    return [path for path in paths if path != NO_CHECKPOINT]


def _compare_normalization(cfg: Mapping, path: str) -> tuple[int, str]:
    """Log level and text on the normalisation here and in pre-training."""
    here = normalization_of_config(cfg)
    if here is not None:
        loader = cfg.get('train_dataloader') or {}
        here = for_files(here, loader.get('dataset') or {})
    there, reason = None, f'{path} is a URL'
    if '://' not in path:
        there = normalization_of_checkpoint(read_checkpoint(path))
        silent = 'this config' if here is None else f'the checkpoint {path}'
        reason = f'{silent} does not record it'
    if here is None or there is None:
        return logging.INFO, (
            f'Normalisation was not compared: {reason}. Make sure that mean, '
            'std and channel order are those of pre-training. Here: '
            f'{here or "unknown"}.'
        )
    if here.agrees_with(there):
        return logging.INFO, f'Normalisation is that of pre-training: {here}.'
    return logging.WARNING, (
        'Normalisation differs from that of pre-training, which costs '
        f'accuracy.\n    pre-training: {there}\n    here:         {here}\n'
        '    Change model.data_preprocessor of this config.'
    )


def _compare_schedule(cfg: Mapping, processes: int) -> str | None:
    """A warning if iterations are counted for another batch size."""
    loader = cfg.get('train_dataloader') or {}
    batch_size = processes * loader.get('batch_size', 0)
    options = batch_size and scaled_options(cfg, batch_size)
    if not options:
        return None
    base = cfg['auto_scale_lr']['base_batch_size']
    longer = {'auto_scale_lr.enable': True, SCALED: True, **options}
    choices = [f'with {batch_size} images a step: {as_text(longer)}']
    if base % processes == 0:
        same = {'train_dataloader.batch_size': base // processes}
        choices.insert(0, f'with {base} images a step: {as_text(same)}')
    listed = '\n'.join(f'    {choice}' for choice in choices)
    return (
        f'This schedule counts iterations of {base} images, but a step of '
        f'this run has {batch_size}, so it will see {batch_size / base:.3g} '
        'times the images intended. To see as many as intended, start with '
        f'--cfg-options and\n{listed}\n    The latter is what '
        '--auto-scale-lr of our launch scripts does.'
    )
