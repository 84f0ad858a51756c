"""Choose settings for a folder of images, and write them as a config."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config

from mmunimoco.engine.checks.config_fields import walk
from mmunimoco.utils.installed import configs_dir
from mmunimoco.utils.versions import count_cores

from .image_folder import ImageFolder

# In the output folder: the config, and the lists of images that it names.
# Not beside the checkpoints, where mmengine writes the merged config.
CONFIG = 'inputs/pretrain.py'
_LISTS = tuple(f'inputs/{name}.txt' for name in ('train', 'val', 'classes'))
MIN_IMAGES = 32
SMALL = 'own_data/unimoco_resnet18_small-images.py'
PHOTOS = 'unimoco/unimoco_resnet50_1xb256-coslr-200e_in1k.py'
_SMALL_SIZES = (32, 48, 64, 96)
# Images that all epochs together show: what the small config needs on 1 000
# images in 100 epochs, and the photo config on ImageNet in 200.
_SMALL_SEEN, _PHOTOS_SEEN = 100_000, 256_000_000


@dataclass(frozen=True)
class Machine:
    """What there is to train on.

    Attributes:
        gpu_memory (float): Of the first GPU in GB; 0 without a GPU.
        cores (int): CPU cores.
    """

    gpu_memory: float
    cores: int

    @classmethod
    def here(cls) -> 'Machine':
        """This machine."""
        memory = 0.0
        if torch.cuda.is_available():
            memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        return cls(memory, count_cores())


@dataclass(frozen=True)
class Plan:
    """Settings of a pre-training run.

    Attributes:
        base (str): Config that is inherited, in the folder of configs.
        size (int): Side of the views in pixels.
        batch (int): Images a step.
        queue (int): Keys in the queue.
        epochs (int): Length of the run.
        workers (int): Data loader processes.
        neighbours (int): k of kNN.
    """

    base: str
    size: int
    batch: int
    queue: int
    epochs: int
    workers: int
    neighbours: int

    @classmethod
    def choose(
        cls, images: ImageFolder, machine: Machine, epochs: int | None = None
    ) -> 'Plan':
        """Choose by number and size of the images, and by the machine.

        Raises:
            ValueError: If there are too few images.
        """
        count = len(images)
        if count < MIN_IMAGES:
            raise ValueError(
                f'{images.root} has {count} images to train on, without those '
                'held out for validation (--val-share); at least '
                f'{MIN_IMAGES} are needed, and hundreds to learn something'
            )
        photos = machine.gpu_memory > 0 and images.side > _SMALL_SIZES[-1]
        quarter = 2 ** int(math.log2(count / 4))  # a power of two
        if photos:
            fits = 256 if machine.gpu_memory > 39 else 128
            batch = min(fits if machine.gpu_memory > 19 else 64, quarter)
            seen, least, most = _PHOTOS_SEEN, 100, 800
        else:
            batch = min(64, quarter)
            seen, least, most = _SMALL_SEEN, 20, 200
        if epochs is None:
            epochs = min(max(round(seen / count), least), most)
        return cls(
            base=PHOTOS if photos else SMALL,
            size=224 if photos else _small_size(images.side),
            batch=batch,
            queue=min(quarter, 65536 if photos else 4096),
            epochs=epochs,
            workers=min(16 if machine.gpu_memory else 2, machine.cores),
            neighbours=max(1, min(10, images.num_labeled // 4)),
        )

    def lines(self, train: ImageFolder, val: ImageFolder | None) -> list[str]:
        """The plan, for people."""
        steps = self.epochs * (len(train) // self.batch)
        epochs = 'epoch' if self.epochs == 1 else 'epochs'
        model = 'ResNet-50' if self.base == PHOTOS else 'narrow ResNet-18'
        validation = 'none, for lack of labels'
        if val is not None:
            validation = (
                f'kNN (k {self.neighbours}) of {len(val)} images against the '
                'labeled training images'
            )
        return [
            f'model       {model}, views of {self.size} x {self.size} pixels',
            f'batch       {self.batch} images, a queue of {self.queue} keys',
            f'length      {self.epochs} {epochs}, {steps} steps',
            f'validation  {validation}',
        ]

    def config(
        self,
        out: Path,
        train: ImageFolder,
        val: ImageFolder | None,
        seed: int = 0,
    ) -> str:
        """The text of the config; lists of images are files in ``out``."""
        text = _HEAD.format(
            base=str(configs_dir() / self.base),
            batch=self.batch,
            workers=self.workers,
            persistent=self.workers > 0,
            broken=max(1, len(train) // 100),
            ratio=1.0 if train.num_labeled else 0.0,
            queue=self.queue,
            epochs=self.epochs,
            seed=seed,
            interval=max(1, self.epochs // 10),
            train=_dataset(train, out / 'train.txt', out, 'views'),
            views=_views(self),
        )
        if self.base == PHOTOS and self.batch < 16:  # two images a split
            splits = dict(norm_cfg=dict(num_splits=self.batch // 2))
            text += f"model['backbone'] = {splits}\n"
        if val is None:
            return text + _NO_VALIDATION
        return text + _VALIDATION.format(
            workers=self.workers,
            k=self.neighbours,
            val=_dataset(val, out / 'val.txt', out, 'whole'),
            bank=_dataset(train, out / 'train.txt', out, 'whole'),
            whole=_whole(self),
        )


def read_lists_of(cfg: Config, out: Path) -> None:
    """Let a config read the lists of images in an output folder.

    It names them by the path that the folder had when the run began. The
    folder may have been moved since, and another be in its place.

    Args:
        cfg (Config): Written by ``mmunimoco pretrain``; others stay as they
            are.
        out (Path): The output folder.
    """
    for _, node in walk('', cfg._cfg_dict):
        if not isinstance(node, dict):
            continue
        for key in ('ann_file', 'classes'):
            named = node.get(key)
            if not isinstance(named, str) or not named.endswith(_LISTS):
                continue
            path = (out / Path(*Path(named).parts[-2:])).absolute()
            if path.is_file():
                node[key] = str(path)


def _small_size(side: float) -> int:
    """The nearest size above, or the largest."""
    return next((x for x in _SMALL_SIZES if x >= side), _SMALL_SIZES[-1])


def _dataset(images: ImageFolder, names: Path, out: Path, views: str) -> str:
    classes = f'classes={str(out / "classes.txt")!r}, '
    root = str(images.root.absolute())  # other tools start elsewhere
    return (
        "dict(\n    type='CustomDataset', "
        f'data_prefix={root!r},\n    ann_file={str(names)!r},\n'
        f'    {classes if images.classes else ""}pipeline={views})'
    )


def _views(plan: Plan) -> str:
    if plan.base == PHOTOS:
        return '{{_base_.train_dataloader.dataset.dataset.pipeline}}'
    return (
        f"[\n    dict(type='LoadTwoCrops', scale={plan.size}, "
        'crop_ratio_range=(0.3, 1.0),\n         antialias=False),\n'
        "    dict(type='PackInputs')]"
    )


def _whole(plan: Plan) -> str:
    if plan.base == PHOTOS:
        return '{{_base_.val_dataloader.dataset.pipeline}}'
    return (
        "[\n    dict(type='CheckedLoadImageFromFile'),\n"
        f"    dict(type='ResizeEdge', scale={plan.size}, edge='short'),\n"
        f"    dict(type='CenterCrop', crop_size={plan.size}),\n"
        "    dict(type='PackInputs')]"
    )


_HEAD = """\
# Written by `mmunimoco pretrain`. To change the run, edit a copy and train it
# with tools/train.py, or tools/dist_train.sh on several GPUs.
_base_ = [{base!r}]

views = {views}
images = {train}
train_dataloader = dict(
    batch_size={batch}, num_workers={workers},
    persistent_workers={persistent},
    dataset=dict(
        _delete_=True, type='SkipBrokenImages', max_broken={broken},
        dataset=dict(
            type='PartialLabels', label_ratio={ratio}, dataset=images)))
# The weight of the own key is 1 as published; short runs get further so.
model = dict(head=dict(
    queue_len={queue}, num_classes=None,
    loss=dict(own_key_weight='balanced')))
train_cfg = dict(max_epochs={epochs}, val_interval={interval})
auto_scale_lr = dict(enable=True)  # the learning rate follows the batch size
randomness = dict(seed={seed})
"""
_NO_VALIDATION = """
# No labels, no kNN.
val_dataloader = None
val_cfg = None
val_evaluator = None
test_dataloader = None
test_cfg = None
test_evaluator = None
default_hooks = dict(checkpoint=dict(save_best=None))
"""
_VALIDATION = """
whole = {whole}
queries = {val}
neighbours = {bank}
val_dataloader = dict(
    num_workers={workers}, dataset=dict(_delete_=True, **queries))
val_cfg = dict(
    k=({k},),
    bank_dataloader=dict(
        num_workers={workers}, dataset=dict(_delete_=True, **neighbours)))
test_dataloader = val_dataloader
test_cfg = val_cfg
"""
