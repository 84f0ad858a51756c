"""Refuse class names that the annotations of a detection set do not have."""

import json
import logging
from collections import Counter

from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmunimoco.datasets.leaf_datasets import find_leaves


@HOOKS.register_module()
class ClassNamesCheckHook(Hook):
    """Refuse class names that the annotations of a detection set do not have.

    mmdet drops what it does not find without a word: of a misspelt class no
    object is trained on, and the classes after it get each other's numbers. So
    they do where a COCO file lists its categories in another order.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Compare class names with annotations, of training and validation.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If a COCO file has no category of a name in
                ``metainfo.classes``, or has them in another order, or the
                training images of a VOC folder show no object of any.
        """
        for leaf in find_leaves(runner.train_dataloader.dataset):
            _check_categories(leaf)
            _check_objects(leaf, runner)
        if runner.val_loop is not None:
            for leaf in find_leaves(runner.val_dataloader.dataset):
                _check_categories(leaf)


def _check_categories(dataset: BaseDataset) -> None:
    """Of COCO's format: the names are those of the categories, in order."""
    classes = dataset.metainfo.get('classes')
    ids = getattr(dataset, 'cat_ids', None)
    if ids is None or classes is None:
        return
    with open(dataset.ann_file, encoding='utf-8') as file:
        names = {
            item['id']: item['name'] for item in json.load(file)['categories']
        }
    unknown = [name for name in classes if name not in names.values()]
    if unknown:
        raise ValueError(
            f'{dataset.ann_file} has no category named {unknown}, which '
            'metainfo.classes asks for. Its categories are '
            f'{list(names.values())}: write the names as they are there.'
        )
    # mmdet gives the numbers 0, 1, ... to the categories as they come.
    numbered = [names[i] for i in ids]
    if numbered != list(classes):
        raise ValueError(
            f'{dataset.ann_file} has its categories in the order {numbered}, '
            f'metainfo.classes is {list(classes)}: mmdet numbers classes as '
            "the file does, so they would get each other's names. Write "
            'metainfo.classes in the order of the files for training and '
            'validation, which must have the same.'
        )


def _check_objects(dataset: BaseDataset, runner: Runner) -> None:
    """Of VOC's format: names are known by the objects alone."""
    # XMLDataset keeps the folder of the annotations; no import of mmdet.
    if not hasattr(dataset, 'ann_subdir'):
        return
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
        runner.logger.log(
            logging.WARNING,
            f'{dataset.ann_file} has no object of {empty}: is each name '
            'written as in the XML files?',
        )
