"""Refuse labels that the head does not expect, before training."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmunimoco.utils.checkpoint import bare_model


@HOOKS.register_module()
class LabelCheckHook(Hook):
    """Compare the training data's labels with ``model.head.num_classes``.

    The head refuses wrong labels as well, but when it meets the first of
    them, maybe hours later. Of data in ``PartialLabels`` all labels that are
    kept are compared, of others the number of classes that they tell.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Compare.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If a label of the data is ``num_classes`` or more.
        """
        head = getattr(bare_model(runner.model), 'head', None)
        num_classes = getattr(head, 'num_classes', None)
        highest = _highest_label(runner.train_dataloader.dataset)
        if not isinstance(num_classes, int) or highest is None:
            return
        if highest >= num_classes:
            raise ValueError(
                f'model.head.num_classes is {num_classes}, but '
                f'train_dataloader.dataset has labels up to {highest}: set '
                f'model.head.num_classes={highest + 1}, or correct the '
                'annotations'
            )


def _highest_label(dataset: Any) -> int | None:
    """The highest label of a data set, as far as it tells; else None."""
    while dataset is not None:
        if hasattr(dataset, 'highest_label'):
            return dataset.highest_label
        inner = getattr(dataset, 'dataset', None)
        if inner is None:
            break
        dataset = inner
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    return None if classes is None else len(classes) - 1
