"""Train by a config, as the Runner does, but one step at a time."""

import gc
import time
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import mmpretrain
import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import EpochBasedTrainLoop
from mmpretrain.registry import LOOPS

from demo.settings import find_config_dir
from mmunimoco.engine.launch import build_runner

from .images import find_images
from .timing import wait

# Of mmpretrain: the configuration that ours is compared with.
MOCO_CONFIG = 'mocov2/mocov2_resnet50_8xb32-coslr-200e_in1k.py'
# Of ours, below configs/unimoco.
CONFIG = 'unimoco_resnet50_8xb32-coslr-200e_in1k.py'
FAST_CONFIG = 'unimoco_resnet50_8xb32-coslr-200e_in1k_fast.py'


@LOOPS.register_module()
class SteppedTrainLoop(EpochBasedTrainLoop):
    """A training loop that gets ready and leaves the steps to the caller.

    After ``Runner.train()`` everything is as before the first iteration of a
    real run, whatever hooks the config has.
    """

    def run(self) -> Any:
        """Call what comes before the first iteration; return the model."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        return self.runner.model


class Trainer:
    """A training run that is driven from outside.

    Args:
        cfg (Config): A pre-training config with its image folder set, see
            :func:`set_images`. Changed in place.
        folder (Path): For logs.
    """

    def __init__(self, cfg: Config, folder: Path) -> None:
        cfg.work_dir = str(folder)
        # Runners of one process must not share a logger or a message hub.
        cfg.experiment_name = f'speed-{folder.name}-{time.time_ns()}'
        cfg.train_cfg = dict(type='SteppedTrainLoop', max_epochs=10**6)
        for field in ('val', 'test'):
            for part in ('cfg', 'dataloader', 'evaluator'):
                cfg[f'{field}_{part}'] = None
        # One of mmengine's own is switched off, the other left out.
        cfg.default_hooks.checkpoint = None
        cfg.default_hooks.pop('visualization', None)
        cfg.param_scheduler = None
        self.runner = build_runner(cfg)
        self.runner.train()

    @property
    def model(self) -> Any:
        """The model in training."""
        return self.runner.model

    @property
    def loader(self) -> Any:
        """The data loader of the run."""
        return self.runner.train_loop.dataloader

    def step(self, data: dict) -> None:
        """Train on a batch, hooks included."""
        self.runner.train_loop.run_iter(0, data)


def our_config() -> Config:
    """Read the pre-training config of this project.

    Raises:
        FileNotFoundError: If the package was installed without its configs.
    """
    return Config.fromfile(find_config_dir('unimoco') / CONFIG)


def fast_config() -> Config:
    """Read the variant of it with the fast input path, and the fast runtime.

    Raises:
        FileNotFoundError: If the package was installed without its configs.
    """
    folder = find_config_dir('unimoco')
    cfg = Config.fromfile(folder / FAST_CONFIG)
    runtime = Config.fromfile(folder.parent / '_base_' / 'fast_runtime.py')
    cfg.optim_wrapper.update(runtime.fast_optim_wrapper)
    cfg.default_hooks.update(runtime.default_hooks)
    for name in ('custom_hooks', 'model_wrapper_cfg'):
        cfg[name] = runtime[name]
    return cfg


def _image_dataset(cfg: Config) -> ConfigDict:
    """The dataset below all wrappers, which has the pipeline."""
    dataset = cfg.train_dataloader.dataset
    while 'pipeline' not in dataset:
        dataset = dataset.dataset
    return dataset


def for_cpu(cfg: Config) -> Config:
    """Leave out of a fast config what a CPU does not have.

    Mixed precision by ``AmpOptimWrapper`` and fused optimizers need CUDA;
    compiling takes a CPU longer than all that is measured here.

    Args:
        cfg (Config): Changed in place.

    Returns:
        Config: The same.
    """
    wrapper = cfg.optim_wrapper
    wrapper.type = 'OptimWrapper'
    for option in ('dtype', 'loss_scale', 'constructor'):
        wrapper.pop(option, None)
    wrapper.optimizer.pop('fused', None)
    for hook in cfg.get('custom_hooks') or []:
        hook.pop('compile', None)  # of StepOptionsHook
    cfg.pop('compile', None)
    return cfg


def moco_config(amp: bool = False) -> Config:
    """Read mmpretrain's own config of MoCo v2.

    Args:
        amp (bool): What its ``tools/train.py --amp`` does. Defaults to False.

    Raises:
        FileNotFoundError: If mmpretrain was installed without its configs.
    """
    root = Path(mmpretrain.__file__).parent
    path = root / '.mim' / 'configs' / MOCO_CONFIG
    if not path.is_file():
        path = root.parent / 'configs' / MOCO_CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"mmpretrain's config {MOCO_CONFIG} is not in {root}/.mim/configs:"
            ' install mmpretrain from its wheel'
        )
    cfg = Config.fromfile(path)
    if amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    return cfg


def set_images(
    cfg: Config, images: Path, batch_size: int, batches: int, workers: int
) -> Config:
    """Let a config read a folder of unlabeled images.

    Args:
        cfg (Config): A pre-training config; changed in place. Its pipeline
            stays.
        images (Path): The folder, of at least one image.
        batch_size (int): Images a step.
        batches (int): Steps an epoch, each of ``batch_size`` images; a small
            folder is read several times.
        workers (int): Processes that load.

    Returns:
        Config: The same.
    """
    wanted = batches * batch_size
    times = ceil(wanted / len(find_images(images)))
    found = dict(
        type='CustomDataset',
        data_root=str(images),
        with_label=False,
        indices=ceil(wanted / times),
        pipeline=_image_dataset(cfg).pipeline,
    )
    loader = cfg.train_dataloader
    loader.dataset = ConfigDict(
        type='RepeatDataset', times=times, dataset=found
    )
    loader.batch_size = batch_size
    loader.num_workers = workers
    loader.persistent_workers = workers > 0
    # The same images in the same order for all that is compared.
    loader.sampler = dict(type='DefaultSampler', shuffle=False)
    loader.drop_last = True
    return cfg


def set_model_size(cfg: Config, depth: int) -> None:
    """Change the depth of a config's ResNet, and the neck with it."""
    cfg.model.backbone.depth = depth
    if depth < 50:
        cfg.model.neck.in_channels = cfg.model.neck.hid_channels = 512


def set_view_size(pipeline: list, size: int) -> None:
    """Change the size of the views that a pipeline crops."""
    for transform in pipeline:
        if isinstance(transform, list):
            set_view_size(transform, size)
        elif transform['type'].endswith(('RandomResizedCrop', 'TwoCrops')):
            transform['scale'] = size
        elif 'transforms' in transform:
            set_view_size(transform['transforms'], size)


def clean_up(device: str) -> None:
    """Free what trainers held that are gone, and what they compiled."""
    gc.collect()
    if device == 'cuda':
        torch.cuda.empty_cache()
        # After some more sizes torch would not compile encoders any more.
        torch.compiler.reset()


def rate_of_epoch(
    loader: Any,
    batch_size: int,
    skip: int,
    consume: Callable[[Any], Any],
    device: str,
) -> float:
    """Images per second of one epoch once it has settled.

    Args:
        loader (DataLoader): Of more than ``skip`` batches.
        batch_size (int): Images a batch.
        skip (int): Batches before the clock starts, at least 1: the start of
            the workers, and what they have loaded in advance.
        consume (Callable): What becomes of a batch.
        device (str): 'cpu' or 'cuda'.

    Returns:
        float: Images per second.
    """
    for index, batch in enumerate(loader, 1):
        consume(batch)
        if index == skip:
            wait(device)
            start = time.perf_counter()
    wait(device)
    return (index - skip) * batch_size / (time.perf_counter() - start)
