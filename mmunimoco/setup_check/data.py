"""Checks of the images and labels of a config."""

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
from mmengine.config import Config
from mmpretrain.registry import DATASETS

from mmunimoco.datasets.annotations import find_leaves, read_samples
from mmunimoco.datasets.skip_broken import list_broken, replaced_files

from .findings import SetupError

SAMPLES = 16  # that are loaded, beside the first and the last
_SHOWN = 3  # of those that fail


def build_training_set(cfg: Config) -> Any:
    """The data set that the config trains on, its annotations read."""
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    dataset.full_init()
    return dataset


def check_counts(cfg: Config, dataset: Any) -> str:
    """How many images there are, and that they make a batch."""
    count, batch = len(dataset), cfg.train_dataloader.batch_size
    if count == 0:
        raise SetupError(
            'there are no images',
            'train_dataloader.dataset must name a folder of images',
        )
    if count < batch and cfg.train_dataloader.get('drop_last'):
        raise SetupError(
            f'{count} images do not fill one batch of {batch}',
            f'train_dataloader.batch_size={count} or less, or '
            'train_dataloader.drop_last=False',
        )
    kinds = sorted({type(leaf).__name__ for leaf in find_leaves(dataset)})
    return f'{count} images of {", ".join(kinds)}'


def check_samples(dataset: Any) -> str:
    """Load the first, the last and some other samples."""
    count = len(dataset)
    drawn = random.Random(0).sample(range(count), min(SAMPLES, count))
    indices = sorted({0, count - 1, *drawn})
    failures, replaced, shape = [], {}, None
    for index in indices:
        try:
            sample = dataset[index]
        except Exception as error:  # of any kind: backends and transforms
            first = (str(error).splitlines() or [''])[0]
            failures.append(f'{index}: {type(error).__name__}: {first}')
            continue
        if isinstance(sample, dict):
            replaced.update(replaced_files(sample.get('data_samples')))
            shape = shape or describe_inputs(sample.get('inputs'))
    if failures:
        raise SetupError(
            f'{len(failures)} of {len(indices)} samples do not load: '
            + '; '.join(failures[:_SHOWN]),
            'repair or remove them; SkipBrokenImages(max_broken=N) around the '
            'dataset replaces up to N broken files',
        )
    text = f'{len(indices)} samples load, each {shape}'
    if replaced:
        text += f'; SkipBrokenImages replaces {len(replaced)}:'
        text += list_broken(replaced)
    return text


def describe_inputs(inputs: Any) -> str:
    """Such as '2 views of 3 x 224 x 224, uint8'."""
    views = inputs if isinstance(inputs, list | tuple) else [inputs]
    shapes = [tuple(getattr(view, 'shape', ())) for view in views]
    if shapes == [()]:
        return 'an index (the images are on the device)'
    kind = str(views[0].dtype).replace('torch.', '')
    size = ' x '.join(map(str, shapes[0]))
    return f'{len(views)} views of {size}, {kind}'


def check_labels(cfg: Config, dataset: Any) -> str:
    """Count the images with and without label, and those of each class."""
    leaves = find_leaves(dataset)
    table = read_samples(leaves)
    total, labeled = len(table.paths), int(table.has_label.sum())
    if not labeled:
        return f'none of {total} images has a label: the same as MoCo v2'
    counts = np.bincount(table.classes)
    highest = len(counts) - 1
    for field, known in _class_counts(cfg, leaves):
        if highest >= known:
            raise SetupError(
                f'there is a label {highest}, and {field} allows {known} '
                'classes',
                f'set {field} to {highest + 1} or more, or correct the labels',
            )
    counts = counts[counts > 0]
    return (
        f'{labeled} of {total} images have a label, of {len(counts)} '
        f'classes with {counts.min()} to {counts.max()} images each'
    )


def _class_counts(
    cfg: Config, leaves: Iterable[Any]
) -> Iterable[tuple[str, int]]:
    number = cfg.model.get('head', {}).get('num_classes')
    if number is not None:
        yield 'model.head.num_classes', number
    for leaf in leaves:
        classes = leaf.metainfo.get('classes')
        if classes:
            yield f'the list of classes of {type(leaf).__name__}', len(classes)


def evaluation_sets(cfg: Config) -> dict[str, Any]:
    """Configs of the data sets that validation uses, by their field."""
    found = {}
    if cfg.get('val_dataloader'):
        found['val_dataloader'] = cfg.val_dataloader.dataset
    bank = (cfg.get('val_cfg') or {}).get('bank_dataloader')
    if bank:
        found['val_cfg.bank_dataloader'] = bank.dataset
    return found


def check_evaluation(cfg: Config) -> str:
    """Build the data sets of validation and load a sample of each."""
    texts = []
    for field, config in evaluation_sets(cfg).items():
        dataset = DATASETS.build(config)
        count = len(dataset)
        if count == 0:
            raise SetupError(
                f'{field} has no images', f'correct {field}.dataset'
            )
        for index in {0, count - 1}:
            dataset[index]
        texts.append(f'{field}: {count} images')
    return '; '.join(texts) or 'the config does not validate'
