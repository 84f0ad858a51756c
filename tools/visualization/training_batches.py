"""What the scripts of this folder share: views and features of a run."""

import argparse
import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch

# Packages print what they lack when they are imported.
with redirect_stdout(io.StringIO()):
    from mmengine.config import Config, DictAction
    from mmengine.logging import MMLogger
    from mmengine.runner import Runner, set_random_seed
    from mmpretrain.registry import MODELS
    from torch import Tensor, nn
    from torch.nn import functional

    from mmunimoco.engine.images_on_device import keep_images
    from mmunimoco.engine.launch import read_config
    from mmunimoco.engine.pretrained_init import NO_CHECKPOINT
    from mmunimoco.evaluation.features import (
        count_not_finite,
        not_finite_text,
    )
    from mmunimoco.models import UniMoCo
    from mmunimoco.utils.checkpoint import check_complete, state_dict_of
    from mmunimoco.utils.config_errors import named_field
    from mmunimoco.utils.safe_load import read_checkpoint

matplotlib.use('Agg')  # no screen
# Names of classes are no formulas.
matplotlib.rcParams['text.parse_math'] = False


@dataclass
class Batch:
    """N images of training.

    Attributes:
        views (list[Tensor]): Of queries and keys, (N, 3, H, W) float.
        labels (Tensor): Shape (N,), -1 for unlabeled.
        names (list[str]): Class names or numbers; '' for unlabeled.
    """

    views: list[Tensor]
    labels: Tensor
    names: list[str]


def run(
    description: str,
    picture: str,
    make: Callable,
    needs_weights: bool = True,
    shows_images: bool = True,
) -> int:
    """Parse the command line and make a picture.

    Args:
        description (str): Of the script.
        picture (str): Default name of the file.
        make (Callable): Called with the arguments; writes the picture.
        needs_weights (bool): Whether the script takes a checkpoint.
        shows_images (bool): Whether the number of images is an option.

    Returns:
        int: The exit status.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='a pre-training config')
    if needs_weights:
        parser.add_argument(
            'checkpoint',
            help=f'path, or {NO_CHECKPOINT!r} for random weights',
        )
        parser.add_argument('--device', default='cpu', help='default: cpu')
        parser.add_argument(
            '--batches',
            type=int,
            default=20,
            help='batches of training images (default: %(default)s)',
        )
    if shows_images:
        parser.add_argument(
            '--images',
            type=int,
            default=8,
            help='images, or queries, to show (default: %(default)s)',
        )
    parser.add_argument(
        '--out', default=picture, help='picture (default: %(default)s)'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of images and views, default 0'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config: key=value',
    )
    args = parser.parse_args()
    try:
        for name in ('images', 'batches'):
            if getattr(args, name, 1) < 1:
                raise ValueError(f'--{name} must be at least 1')
        _check_device(getattr(args, 'device', 'cpu'))
        args.out = _with_suffix(Path(args.out))
        args.out.parent.mkdir(parents=True, exist_ok=True)
        make(args)
    # TypeError: a value that a part of the config does not take.
    except (OSError, TypeError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(f'wrote {args.out}')
    return 0


def _with_suffix(path: Path) -> Path:
    """The file that is written: matplotlib would append a suffix itself."""
    return path if path.suffix else path.with_name(f'{path.name}.png')


def _check_device(name: str) -> None:
    try:
        torch.zeros(1, device=name)
    except (AssertionError, ImportError, RuntimeError) as error:
        reason = str(error).partition('\n')[0]
        raise ValueError(f'--device {name}: {reason}') from error


def load(args: argparse.Namespace) -> tuple[Config, UniMoCo]:
    """Read the config, and build its model in evaluation mode.

    Raises:
        ValueError: If the model is no UniMoCo, or the checkpoint lacks a
            tensor of it.
    """
    cfg = read_config(args.config, args.cfg_options)
    set_random_seed(args.seed)
    # Building a model logs each of its tensors.
    MMLogger.get_instance('visualization').setLevel(logging.WARNING)
    settings = dict(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    with named_field('model'):
        model = MODELS.build(settings)
    if not isinstance(model, UniMoCo):
        raise ValueError(
            f'{args.config} trains a {type(model).__name__}; give the config '
            'of a pre-training with UniMoCo'
        )
    checkpoint = getattr(args, 'checkpoint', NO_CHECKPOINT)
    if checkpoint == NO_CHECKPOINT:
        model.init_weights()
        model.encoder_k.update(nn.Sequential(model.backbone, model.neck))
    else:
        state = state_dict_of(read_checkpoint(checkpoint), unwrap=True)
        check_complete(model, state, checkpoint, part='')
        model.load_state_dict(state, strict=False)
    return cfg, model.to(getattr(args, 'device', 'cpu')).eval()


def batches(
    cfg: Config, model: UniMoCo, count: int, seed: int
) -> Iterator[Batch]:
    """Yield the first batches of training, augmented as in training.

    Args:
        cfg (Config): The config.
        model (UniMoCo): Its model.
        count (int): Number of batches.
        seed (int): Of the order of the images.
    """
    settings = dict(cfg.train_dataloader)
    settings.update(num_workers=0, persistent_workers=False)
    with named_field('train_dataloader'):
        loader = Runner.build_dataloader(settings, seed=seed)
    if any(
        hook.get('images_on_device') for hook in cfg.get('custom_hooks', [])
    ):
        keep_images(model.data_preprocessor, loader.dataset)
    classes = (getattr(loader.dataset, 'metainfo', None) or {}).get('classes')
    for index, data in enumerate(loader):
        if index == count:
            break
        data = model.data_preprocessor(data, training=True)
        labels = model.head.collect(data['data_samples']).labels
        if labels.dim() == 2:
            raise ValueError(
                'several labels an image (model.head.multi_label) cannot be '
                'shown'
            )
        names = [
            '' if i < 0 else str(classes[i] if classes else i)
            for i in labels.tolist()
        ]
        yield Batch(data['inputs'], labels, names)


@torch.no_grad()
def features(model: UniMoCo, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return L2-normalised queries and keys, (N, C) on the CPU.

    Raises:
        ValueError: If a feature is not finite.
    """
    query = model.neck(model.backbone(batch.views[0]))[0]
    key = model.encoder_k(batch.views[1])[0]
    lost = count_not_finite(torch.cat([query, key], dim=1))
    if lost:
        raise ValueError(not_finite_text(lost))
    return tuple(
        functional.normalize(x.float().cpu(), dim=1) for x in (query, key)
    )


def as_images(model: UniMoCo, views: Tensor) -> Tensor:
    """Undo the normalisation; (N, H, W, 3) in [0, 1], in the same order.

    Colours are right if the views are RGB, as in the configs here.
    """
    preprocessor, views = model.data_preprocessor, views.float().cpu()
    if preprocessor._enable_normalize:
        mean, std = preprocessor.mean.cpu(), preprocessor.std.cpu()
        views = views * std + mean
    images = (views / 255).clamp(0, 1).permute(0, 2, 3, 1)
    return images.expand(*images.shape[:3], 3)
