"""Look after what goes wrong silently when a backbone is transferred."""

import logging
from collections.abc import Mapping

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import nn

from mmunimoco.utils.checkpoint import (
    StateMatch,
    bare_model,
    compare_state,
    describe_prefixes,
    shorten,
    state_dict_of,
)
from mmunimoco.utils.normalization import (
    normalization_of_checkpoint,
    normalization_of_config,
)
from mmunimoco.utils.safe_load import read_checkpoint

from .iteration_schedule import SCALED, as_text, scaled_options
from .pretrained_init import NO_CHECKPOINT


@HOOKS.register_module()
class TransferCheckHook(Hook):
    """Compare images and weights of transfer with where they come from.

    - When training starts, mean, std and channel order of the data
      preprocessor are compared with those of pre-training, as far as the
      pre-trained checkpoint tells; a mismatch is a warning.
    - So is a schedule in iterations that is not for this number of images a
      step, because it would see more or fewer images than meant.
    - When a checkpoint is tested, all of the model must be in it. mmengine
      would go on with random weights in place of what is missing, or of a
      head for another number of classes.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._loaded: tuple[StateMatch, str] | None = None

    def before_train(self, runner: Runner) -> None:
        """Report what images and schedule of this run are like.

        Args:
            runner (Runner): The runner; its model is initialised.
        """
        self._loaded = None  # training fills what was missing
        if not is_main_process():
            return
        for path in _checkpoints_of(bare_model(runner.model)):
            level, message = _compare(runner.cfg, path)
            runner.logger.log(level, message)
        message = _compare_schedule(runner.cfg, runner.world_size)
        if message:
            runner.logger.log(logging.WARNING, message)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember what is in a checkpoint.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What was read; not in the model yet.
        """
        state = state_dict_of(checkpoint, unwrap=True)
        match = compare_state(bare_model(runner.model), state)
        self._loaded = match, describe_prefixes(state)

    def before_test(self, runner: Runner) -> None:
        """Refuse to test a model that is partly random.

        Args:
            runner (Runner): The runner; its checkpoint is loaded.

        Raises:
            ValueError: If a tensor of the model is not in the checkpoint, or
                has another shape there.
        """
        if self._loaded is None:
            return
        match, prefixes = self._loaded
        runner.logger.info(
            f'The checkpoint to test fills {len(match.matched)} of '
            f'{len(bare_model(runner.model).state_dict())} tensors of the '
            f'model; {len(match.unused)} of its own are not used.'
        )
        faults = match.missing + match.misshapen
        if faults:
            raise ValueError(
                f'the checkpoint to test lacks {len(faults)} tensors of the '
                f'model: {shorten(faults)}. The prefixes in it are '
                f'{prefixes}. Test a checkpoint that was fine-tuned with '
                'this config (a pre-trained one has no head), and the same '
                'classes.'
            )


def _checkpoints_of(model: nn.Module) -> list[str]:
    """Paths that parts of a model are initialised from, each once."""
    paths = {}
    for module in model.modules():
        config = getattr(module, 'init_cfg', None)
        for one in config if isinstance(config, list) else [config]:
            if isinstance(one, Mapping) and one.get('checkpoint'):
                paths[one['checkpoint']] = None
    return [path for path in paths if path != NO_CHECKPOINT]


def _compare(cfg: Mapping, path: str) -> tuple[int, str]:
    """Level and text of what there is to say about one checkpoint."""
    here = normalization_of_config(cfg)
    if '://' in path:
        return logging.INFO, (
            f'Normalisation was not compared: {path} is a URL. See to it '
            'that mean, std and channel order are those of pre-training. '
            f'Here: {here or "unknown"}.'
        )
    there = normalization_of_checkpoint(read_checkpoint(path))
    if here is None or there is None:
        silent = 'this config' if here is None else f'the checkpoint {path}'
        return logging.INFO, (
            f'Normalisation was not compared: {silent} does not tell it. '
            'See to it that mean, std and channel order are those of '
            f'pre-training. Here: {here or "unknown"}.'
        )
    if here.agrees_with(there):
        return logging.INFO, f'Normalisation is that of pre-training: {here}.'
    return logging.WARNING, (
        'Normalisation differs from that of pre-training, which costs '
        f'accuracy.\n    pre-training: {there}\n    here:         {here}\n'
        '    Change model.data_preprocessor of this config.'
    )


def _compare_schedule(cfg: Mapping, processes: int) -> str | None:
    """What there is to say about a schedule for another batch."""
    loader = cfg.get('train_dataloader') or {}
    batch_size = processes * loader.get('batch_size', 0)
    options = batch_size and scaled_options(cfg, batch_size)
    if not options:
        return None
    base = cfg['auto_scale_lr']['base_batch_size']
    longer = {'auto_scale_lr.enable': True, SCALED: True, **options}
    choices = [f'with steps of {batch_size}: {as_text(longer)}']
    if base % processes == 0:
        same = {'train_dataloader.batch_size': base // processes}
        choices.insert(0, f'with steps of {base}: {as_text(same)}')
    listed = '\n'.join(f'    {choice}' for choice in choices)
    return (
        f'This schedule counts iterations, for {base} images a step; here a '
        f'step has {batch_size}, so {batch_size / base:.3g} times the images '
        'that are meant will be seen. To see as many, start with '
        f'--cfg-options and\n{listed}\n    The latter is what --auto-scale-lr '
        'of our launch scripts does.'
    )
