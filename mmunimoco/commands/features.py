"""``mmunimoco eval`` and ``embed``: scores and features of a checkpoint."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.utils import track_iter_progress
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mmunimoco.converters.files import check_free
from mmunimoco.engine.launch import build_runner
from mmunimoco.evaluation.cached_linear_probe import (
    load_backbone,
    probe_checkpoint,
)
from mmunimoco.evaluation.features import (
    count_not_finite,
    evaluating,
    extract_batch,
    not_finite_text,
)
from mmunimoco.utils.atomic import write_whole
from mmunimoco.utils.config_text import check_types, config_literal
from mmunimoco.utils.installed import find_weights
from mmunimoco.utils.normalization import loads_files, pipeline_of
from mmunimoco.utils.safe_load import read_checkpoint

from .image_folder import is_split, read_folder
from .plan import read_lists_of

OWN_MODELS = 'mmunimoco://'
CHECKPOINT = 'checkpoint of a pre-training run, or mmunimoco://<config>'


def add_eval_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of ``eval``."""
    parser.add_argument('checkpoint', help=CHECKPOINT)
    parser.add_argument(
        '--config',
        help='config with a kNN test (default: the one in the checkpoint)',
    )


def evaluate(args: Namespace) -> None:
    """Print kNN and the linear probe on cached features.

    Raises:
        ValueError: If the config has no kNN test, or the checkpoint does not
            fit.
    """
    cfg = _config(args.checkpoint, args.config)
    if cfg.get('test_dataloader') is None:
        raise ValueError(
            'this run has no labeled validation images; give --config, a '
            'config with test_dataloader and test_cfg of a kNN test'
        )
    cfg.load_from, cfg.resume = args.checkpoint, False
    folder = Path(args.checkpoint).resolve().parent
    if args.checkpoint.startswith(OWN_MODELS):
        folder = Path('work_dirs') / args.checkpoint.removeprefix(OWN_MODELS)
    cfg.work_dir = str(folder / 'eval')
    read_lists_of(cfg, folder)
    knn = build_runner(cfg.copy(), verbose=False).test()
    probe = probe_checkpoint(cfg, args.checkpoint)
    print()
    for name, value in knn.items():
        print(f'{name}: {value:.2f}')
    print(f'linear/top1: {probe["top1"]:.2f} ({probe["protocol"]})')


def add_embed_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of ``embed``."""
    parser.add_argument('checkpoint', help=CHECKPOINT)
    parser.add_argument('folder', type=Path, help='folder of images')
    parser.add_argument(
        '--out', type=Path, default=Path('features.npz'), help='file to write'
    )
    parser.add_argument(
        '--config', help='config (default: the one in the checkpoint)'
    )
    parser.add_argument('--force', action='store_true', help='overwrite')


def embed(args: Namespace) -> None:
    """Write features of the images in a folder.

    The file has ``features`` (N, D) float32, pooled and not normalised,
    ``names`` (N,), paths from the folder, ``labels`` (N,) int64 by
    sub-folder (below ``train`` and ``val``), -1 for none, and ``classes``.
    Files that are no images are left out, with a line that counts them.

    Raises:
        ValueError: If there is no image, or the output file is unsuitable.
        BrokenImageError: If an image is damaged.
    """
    if args.out.suffix != '.npz':
        raise ValueError(f'--out must end with .npz, got {args.out}')
    check_free(args.out, args.force)
    images = read_folder(args.folder, is_split(args.folder))
    if images.unreadable:
        print(
            f'left out: {len(images.unreadable)} unreadable images, such as '
            f'{args.folder / images.unreadable[0]}'
        )
    cfg = _config(args.checkpoint, args.config)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    model = load_backbone(cfg, args.checkpoint).to(get_device())
    files = _Files(args.folder, images.names, _pipeline(cfg))
    features = _extract(model, files)
    content = dict(
        features=features,
        names=np.array(images.names),
        labels=np.array(images.labels),
        classes=np.array(images.classes),
    )
    write_whole(args.out, lambda part: _save(part, content))
    print(f'wrote {args.out}: {len(features)} x {features.shape[1]} features')


class _Files(Dataset):
    """Image files without annotations, through an evaluation pipeline."""

    def __init__(
        self, root: Path, names: list[str], pipeline: list[dict]
    ) -> None:
        self.root, self.names = root, names
        self.pipeline = Compose(pipeline)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict:
        path = str(self.root / self.names[index])
        return self.pipeline(dict(img_path=path))


def _extract(model: nn.Module, files: _Files) -> np.ndarray:
    """Pooled features (N, D) float32 of all files."""
    loader = DataLoader(
        files,
        batch_size=64,
        num_workers=min(2, len(files) // 64),
        collate_fn=default_collate,
    )
    found = []
    with evaluating(model):
        for batch in track_iter_progress((iter(loader), len(loader))):
            found.append(extract_batch(model, batch)[0].cpu())
    features = torch.cat(found)
    bad = count_not_finite(features)
    if bad:
        raise ValueError(not_finite_text(bad))
    return features.numpy()


def _pipeline(cfg: Config) -> list[dict]:
    """Load, resize and crop as in validation, or as the crops in training."""
    if cfg.get('val_dataloader'):
        pipeline = pipeline_of(cfg.val_dataloader.dataset)
        # Images of datasets in one file are not loaded by the pipeline.
        if loads_files(pipeline):
            return pipeline
    pipeline = pipeline_of(cfg.train_dataloader.dataset)
    preprocessor = cfg.get('data_preprocessor') or {}
    scale = _scale_of_crops(pipeline, preprocessor)
    # As usual for photographs; small images are not cut.
    edge = round(scale * 256 / 224) if scale > 96 else scale
    transforms = [
        dict(type='CheckedLoadImageFromFile'),
        dict(type='ResizeEdge', scale=edge, edge='short'),
        dict(type='CenterCrop', crop_size=scale),
    ]
    if not loads_files(pipeline) and not preprocessor.get('to_rgb'):
        # Trained on arrays in RGB, as CIFAR's; files are read as BGR.
        transforms += [
            dict(type='NumpyToPIL', to_rgb=True),
            dict(type='PILToNumpy'),
        ]
    return [*transforms, dict(type='PackInputs')]


def _scale_of_crops(pipeline: list[dict], preprocessor: dict) -> int:
    if preprocessor.get('crop'):  # on the batch
        return preprocessor['crop']['scale']
    views = [
        transform
        for outer in pipeline
        for view in outer.get('transforms', [])
        for transform in (view if isinstance(view, list) else [view])
    ]
    for transform in [*pipeline, *views]:
        if transform['type'] in ('LoadTwoCrops', 'RandomResizedCrop'):
            scale = transform['scale']
            return scale if isinstance(scale, int) else min(scale)
    raise ValueError(
        'neither the validation nor the crops of the config say how image '
        'files are loaded; give --config'
    )


def _save(part: Path, content: dict) -> None:
    with part.open('wb') as file:  # savez would change the name
        np.savez(file, **content)


def _config(checkpoint: str, path: str | None) -> Config:
    """The given config, or the one that the checkpoint bears."""
    if path is not None:
        return Config.fromfile(path)
    if checkpoint.startswith(OWN_MODELS):
        weights = find_weights(checkpoint.removeprefix(OWN_MODELS))
        name = f'{checkpoint.removeprefix(OWN_MODELS)}.py'
        return Config.fromfile(weights.parents[1] / name)
    meta = read_checkpoint(checkpoint).get('meta') or {}
    # Read, not executed: a checkpoint may be anybody's.
    content = config_literal(meta.get('cfg'))
    if content is None:
        raise ValueError(
            f'{checkpoint} bears no config that can be read; give --config'
        )
    content.pop('custom_imports', None)
    check_types(content)
    return Config(content)
