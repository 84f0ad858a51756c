"""Training runs of the compared configs, driven one step at a time."""

import gc
import time
from collections.abc import Callable, Iterable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import mmpretrain
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.runner import EpochBasedTrainLoop
from mmpretrain.registry import DATASETS, LOOPS
from mmpretrain.structures import DataSample

from mmunimoco.engine.launch import build_runner

from .measure import synchronize

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs/unimoco/unimoco_resnet50_8xb32-coslr-200e_in1k.py'
MOCO_CONFIG = 'mocov2/mocov2_resnet50_8xb32-coslr-200e_in1k.py'
CLASSES = 1000


@LOOPS.register_module()
class PausedTrainLoop(EpochBasedTrainLoop):
    """Prepare for the first iteration, and leave the steps to the caller."""

    def run(self) -> Any:
        """Call the hooks that precede the first iteration."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        return self.runner.model


@DATASETS.register_module()
class ListedImages(BaseDataset):
    """Unlabeled images, repeated up to a length.

    Args:
        paths (list[str]): Image files.
        length (int): Number of samples.
        **kwargs: Arguments of ``BaseDataset``.
    """

    def __init__(self, paths: list[str], length: int, **kwargs) -> None:
        self.paths, self.length = paths, length
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict]:
        return [
            dict(img_path=path)
            for path in islice(cycle(self.paths), self.length)
        ]


class Trainer:
    """A training run whose steps are called from outside.

    Args:
        cfg (Config): A pre-training config that reads existing images, see
            :func:`read_images`. Modified in place.
        folder (Path): For logs.
        validate (bool): Whether to keep the config's validation. Defaults to
            False.

    Attributes:
        model (nn.Module): The model in training.
        loader (DataLoader): The config's training data loader.
    """

    def __init__(
        self, cfg: Config, folder: Path, validate: bool = False
    ) -> None:
        cfg.work_dir = str(folder)
        # Runners of one process must not share a logger or a message hub.
        cfg.experiment_name = f'speed-{folder.name}-{time.time_ns()}'
        cfg.log_level = 'ERROR'
        cfg.train_cfg = dict(type='PausedTrainLoop', max_epochs=10**6)
        for split in ('test',) if validate else ('val', 'test'):
            for part in ('cfg', 'dataloader', 'evaluator'):
                cfg[f'{split}_{part}'] = None
        cfg.default_hooks.checkpoint = None
        cfg.default_hooks.pop('visualization', None)
        cfg.param_scheduler = None
        self.runner = build_runner(cfg)
        self.runner.train()
        self.model = self.runner.model
        self.loader = self.runner.train_loop.dataloader

    def step(self, data: dict) -> None:
        """Train on a batch, hooks included."""
        self.runner.train_loop.run_iter(0, data)

    def validate(self) -> None:
        """Evaluate as between two epochs."""
        self.runner.val_loop.run()
        self.model.train()


def our_config(device: str) -> Config:
    """Read this project's config of ResNet-50 on ImageNet.

    Args:
        device (str): On 'cpu', mixed precision, compilation and the fused
            optimizer are switched off: they need CUDA or a long warm-up.
    """
    cfg = Config.fromfile(CONFIG)
    return cfg if device == 'cuda' else unfused(cfg)


def unfused(cfg: Config) -> Config:
    """Switch off, in place, what needs CUDA or a long warm-up."""
    wrapper = cfg.optim_wrapper
    wrapper.type = 'OptimWrapper'
    for option in ('dtype', 'loss_scale', 'constructor'):
        wrapper.pop(option, None)
    wrapper.optimizer.pop('fused', None)
    for hook in cfg.get('custom_hooks') or []:
        if hook.get('compile'):
            hook.compile = False
    return cfg


def graphs_config() -> Config:
    """Read the same config, with the encoders replayed from CUDA graphs."""
    cfg = our_config('cuda')
    for hook in cfg.custom_hooks:
        if hook.get('compile'):
            hook.compile = 'cuda-graphs'
    return cfg


def decoding_config(device: str) -> Config:
    """Read the same config with images decoded on the device.

    Args:
        device (str): See :func:`our_config`.
    """
    cfg = our_config(device)
    cfg.train_dataloader.collate_fn = dict(type='collate_encoded')
    load = _pipeline_of(cfg)[0]
    load.type = 'LoadEncodedCrops'
    load.pop('antialias', None)
    return cfg


def moco_config(device: str) -> Config:
    """Read mmpretrain's config of MoCo v2, with ``--amp`` on CUDA.

    Raises:
        FileNotFoundError: If mmpretrain was installed without its configs.
    """
    root = Path(mmpretrain.__file__).parent
    path = root / '.mim/configs' / MOCO_CONFIG
    if not path.is_file():  # an editable installation
        path = root.parent / 'configs' / MOCO_CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"mmpretrain's config {MOCO_CONFIG} is not in {root}/.mim/configs:"
            ' install mmpretrain from its wheel'
        )
    cfg = Config.fromfile(path)
    if device == 'cuda':
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    return cfg


def read_images(
    cfg: Config,
    paths: list[Path],
    batch_size: int,
    batches: int,
    workers: int,
    image_size: int = 224,
) -> Config:
    """Make a config read unlabeled images with its own training pipeline.

    Args:
        cfg (Config): A pre-training config; modified in place.
        paths (list[Path]): Images, repeated up to the epoch's length.
        batch_size (int): Images per step.
        batches (int): Steps per epoch.
        workers (int): Data loader processes.
        image_size (int): Height and width of the views. Defaults to 224.

    Returns:
        Config: The same config.
    """
    pipeline = _pipeline_of(cfg)
    _set_view_size(pipeline, image_size)
    loader = cfg.train_dataloader
    loader.dataset = ConfigDict(
        type='ListedImages',
        paths=[str(path.resolve()) for path in paths],
        length=batches * batch_size,
        pipeline=pipeline,
    )
    loader.batch_size, loader.num_workers = batch_size, workers
    loader.persistent_workers, loader.pin_memory = workers > 0, False
    # The same images in the same order for all contestants.
    loader.sampler = dict(type='DefaultSampler', shuffle=False)
    loader.drop_last = True
    return cfg


def _pipeline_of(cfg: Config) -> list:
    dataset = cfg.train_dataloader.dataset
    while 'pipeline' not in dataset:
        dataset = dataset.dataset
    return dataset.pipeline


def _set_view_size(node: Any, size: int) -> None:
    """Change the size of the views that a pipeline crops."""
    if isinstance(node, (list, tuple)):
        for item in node:
            _set_view_size(item, size)
    elif isinstance(node, dict):
        if node.get('type', '').endswith(
            ('RandomResizedCrop', 'TwoCrops', 'EncodedCrops')
        ):
            node['scale'] = size
        _set_view_size(node.get('transforms'), size)


def set_depth(cfg: Config, depth: int) -> Config:
    """Change the depth of a config's ResNet, and its neck's width to match."""
    cfg.model.backbone.depth = depth
    if depth < 50:
        cfg.model.neck.in_channels = cfg.model.neck.hid_channels = 512
    return cfg


def synthetic_batches(
    batch_size: int, image_size: int, device: str, label_share: float = 1.0
) -> list[dict]:
    """Draw four batches of two random uint8 views that lie on the device.

    Args:
        batch_size (int): Images per batch.
        image_size (int): Height and width.
        device (str): Where the images are.
        label_share (float): Share of labeled images. Defaults to 1.
    """
    shape = (batch_size, 3, image_size, image_size)
    batches = []
    for _ in range(4):
        labels = torch.randint(CLASSES, (batch_size,))
        labels[round(label_share * batch_size) :] = -1
        views = [
            torch.randint(256, shape, dtype=torch.uint8, device=device)
            for _ in range(2)
        ]
        samples = [DataSample().set_gt_label(x) for x in labels.tolist()]
        batches.append(dict(inputs=views, data_samples=samples))
    return batches


def epoch_rate(
    batches: Iterable,
    batch_size: int,
    skip: int,
    consume: Callable[[Any], Any],
    device: str,
) -> float:
    """Return the images per second of one epoch after its start-up.

    Args:
        batches (Iterable): A data loader, or a list of batches.
        batch_size (int): Images per batch.
        skip (int): Batches before the clock starts, at least 1: while the
            workers start, and what they have loaded in advance.
        consume (Callable): Called with each batch.
        device (str): 'cpu' or 'cuda'.
    """
    for index, batch in enumerate(batches, 1):
        consume(batch)
        if index == skip:
            synchronize(device)
            start = time.perf_counter()
    synchronize(device)
    return (index - skip) * batch_size / (time.perf_counter() - start)


def free_memory(device: str) -> None:
    """Release deleted trainers and what they compiled."""
    gc.collect()
    if device == 'cuda':
        torch.cuda.empty_cache()
        # torch recompiles a module only so many times.
        torch.compiler.reset()
