"""The datasets that a label list can be made from."""

import os
import os.path as osp

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

# They change which labels there are, or what the labeled images count; a list
# is chosen from all labels, of each image once.
_LABEL_WRAPPERS = ('PartialLabels', 'LabeledSubset', 'RepeatLabeled')


def dataset_from_folder(folder: str) -> CustomDataset:
    """Images in class sub-folders, as ImageNet has them.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: No class sub-folders in it, or no images in those.
    """
    folder = osp.expanduser(folder)
    if not osp.isdir(folder):
        raise FileNotFoundError(f'{folder!r} is not a folder')
    if not any(entry.is_dir() for entry in os.scandir(folder)):
        raise ValueError(
            f'{folder!r} has no sub-folders; one a class is needed'
        )
    try:
        return CustomDataset(data_prefix=folder)
    except RuntimeError as error:  # mmpretrain's word for "no images"
        raise ValueError(str(error)) from error


def dataset_from_config(
    path: str,
    key: str = 'train_dataloader.dataset',
    options: dict | None = None,
):
    """The dataset in a config, with all its labels.

    ``PartialLabels``, ``LabeledSubset`` and ``RepeatLabeled`` are left out,
    also below other wrappers.

    Args:
        path: Of the config file.
        key: Where in the config the dataset stands.
        options: Overrides of the config, as for ``--cfg-options``.

    Raises:
        FileNotFoundError: No such config.
        ValueError: Nothing, or no dataset, at ``key``; or it cannot be built:
            an unknown type, no images.
    """
    if not osp.isfile(path):
        raise FileNotFoundError(f'{path!r} is not a file')
    config = Config.fromfile(path)
    config.merge_from_dict(options or {})
    found = config
    for part in key.split('.'):
        found = found.get(part) if hasattr(found, 'get') else None
    if not isinstance(found, dict) or 'type' not in found:
        raise ValueError(f'{path!r} has no dataset at {key!r}')
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    try:
        dataset = DATASETS.build(_with_all_labels(found))
        dataset.full_init()
    except (KeyError, RuntimeError) as error:
        # mmengine's "not in the registry", mmpretrain's "no images". The
        # text of a KeyError would come in quotes.
        reason = ' '.join(map(str, error.args))
        raise ValueError(f'{key!r} in {path!r}: {reason}') from error
    return dataset


def _with_all_labels(config: dict) -> dict:
    """A copy of a dataset's config without the wrappers that hide labels."""
    while str(config['type']).rpartition('.')[2] in _LABEL_WRAPPERS:
        config = config['dataset']
    config = dict(config)
    if 'dataset' in config:
        config['dataset'] = _with_all_labels(config['dataset'])
    if 'datasets' in config:
        config['datasets'] = [*map(_with_all_labels, config['datasets'])]
    return config
