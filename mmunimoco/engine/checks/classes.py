"""Checks of the labels and the class names of datasets."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.fileio import load
from mmengine.logging import print_log
from torch import nn

from mmunimoco.datasets.annotations import children_of, leaves_of
from mmunimoco.datasets.folder_report import describe_folder


def check_labels(model: nn.Module, dataset: Any) -> None:
    """Compare the labels of the training data with ``head.num_classes``.

    The head refuses wrong labels too, but only when it meets the first one.
    ``PartialLabels`` knows the labels that it keeps; other datasets are taken
    at their word about their classes. Wrappers are followed to every dataset
    below.

    Raises:
        ValueError: If a label is ``num_classes`` or more.
    """
    num_classes = getattr(getattr(model, 'head', None), 'num_classes', None)
    if not isinstance(num_classes, int):
        return
    highest = max(_highest_labels(dataset), default=-1)
    if highest >= num_classes:
        raise ValueError(
            f'model.head.num_classes is {num_classes}, but '
            f'train_dataloader.dataset has labels up to {highest}: set '
            f'model.head.num_classes={highest + 1}, or correct the '
            'annotations'
        )


def _highest_labels(dataset: Any) -> Iterator[int]:
    """The highest label of each dataset below that knows it."""
    if hasattr(dataset, 'highest_label'):
        if dataset.highest_label is not None:
            yield dataset.highest_label
        return
    children = children_of(dataset)
    for child in children:
        yield from _highest_labels(child)
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if not children and classes is not None:
        yield len(classes) - 1


def warn_of_folders(datasets: Mapping[str, Any]) -> None:
    """Warn of images that are left out, and of folders that are no classes.

    Args:
        datasets (Mapping[str, Any]): Initialised datasets by the field of the
            config. Wrappers are followed to every dataset below.
    """
    said = set()  # validation and training may read the same folder
    for field, dataset in datasets.items():
        for leaf in leaves_of(dataset):
            text = describe_folder(leaf)
            if text and text not in said:
                said.add(text)
                print_log(
                    f'{field}: {text}', logger='current', level=logging.WARNING
                )


def check_class_names(dataset: Any, training: bool) -> None:
    """Compare class names with the annotations of mmdet's datasets.

    mmdet drops annotations of unknown classes silently: a misspelt class is
    never trained on, and the classes after it get each other's indices. So
    they do if a COCO file lists its categories in another order.

    In training, datasets of VOC's format must also show objects of the
    classes.

    Raises:
        ValueError: If a COCO file has no category of a name in
            ``metainfo.classes``, or has them in another order, or the images
            of a VOC dataset show no object of any class.
    """
    for leaf in leaves_of(dataset):
        if getattr(leaf, 'cat_ids', None) is not None:
            _check_categories(leaf)
        # XMLDataset has the folder of the annotations; mmdet is not imported.
        elif training and hasattr(leaf, 'ann_subdir'):
            _check_objects(leaf)


def _check_categories(dataset: BaseDataset) -> None:
    """COCO: the classes are the categories of the file, in its order."""
    classes = dataset.metainfo.get('classes')
    # The benchmark's own classes: its file is large, and LVIS ignores names.
    defaults = getattr(type(dataset), 'METAINFO', {}).get('classes') or ()
    if classes is None or list(classes) == list(defaults):
        return
    annotations = load(
        dataset.ann_file,
        file_format='json',
        backend_args=getattr(dataset, 'backend_args', None),
    )
    names = {item['id']: item['name'] for item in annotations['categories']}
    unknown = [name for name in classes if name not in names.values()]
    if unknown:
        raise ValueError(
            f'{dataset.ann_file} has no category named {unknown}, which '
            'metainfo.classes asks for. Its categories are '
            f'{list(names.values())}: write the names as they are there.'
        )
    # mmdet numbers the categories in the order of the file.
    numbered = [names[i] for i in dataset.cat_ids]
    if numbered != list(classes):
        raise ValueError(
            f'{dataset.ann_file} has its categories in the order {numbered}, '
            f'metainfo.classes is {list(classes)}: mmdet numbers classes in '
            'the order of the file, so they would be mixed up. Write '
            'metainfo.classes in the order of the files for training and '
            'validation, which must have the same.'
        )


def _check_objects(dataset: BaseDataset) -> None:
    """VOC: the class names are known from the objects alone."""
    classes = dataset.metainfo['classes']
    counts = Counter(
        instance['bbox_label']
        for index in range(len(dataset))
        for instance in dataset.get_data_info(index)['instances']
    )
    empty = [name for i, name in enumerate(classes) if not counts[i]]
    if len(empty) == len(classes):
        raise ValueError(
            f'no object of any of the classes {list(classes)} is in the '
            f'{len(dataset)} images of {dataset.ann_file}: write '
            'metainfo.classes as the names in the XML files.'
        )
    if empty:
        print_log(
            f'{dataset.ann_file} has no object of {empty}: is each name '
            'written as in the XML files?',
            logger='current',
            level=logging.WARNING,
        )
