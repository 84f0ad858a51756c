"""Refuse masks and heads that do not fit the classes of a segmentation set."""

from collections.abc import Mapping, Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import nn

from mmunimoco.utils.checkpoint import bare_model

# What mmseg leaves out of losses and metrics.
IGNORED = 255


@HOOKS.register_module()
class SegmentationCheckHook(Hook):
    """Refuse masks and heads that do not fit the classes of a data set.

    mmseg itself notices nothing of a head with more classes than the data
    set; a mask with a class beyond the last one ends in an assertion inside
    a CUDA kernel in training, and counts as a mistake in validation and
    testing.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Compare the heads with the classes of the data set.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If a head has another number of classes.
        """
        classes = runner.train_dataloader.dataset.metainfo.get('classes')
        if classes is None:
            return
        for name, count in _heads(bare_model(runner.model)).items():
            if count != len(classes):
                raise ValueError(
                    f'model.{name}.num_classes is {count}, but the data set '
                    f'has the {len(classes)} classes {list(classes)}: set '
                    f'num_classes={len(classes)}.'
                )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Mapping | None = None
    ) -> None:
        """Look at the masks of a batch, still on the CPU.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Number of the batch.
            data_batch (dict, optional): The batch.

        Raises:
            ValueError: If a mask has a class that the heads do not have.
        """
        _check_masks(runner, data_batch)

    def before_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Mapping | None = None
    ) -> None:
        """The same in validation; see :meth:`before_train_iter`."""
        _check_masks(runner, data_batch)

    def before_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Mapping | None = None
    ) -> None:
        """The same in testing; see :meth:`before_train_iter`."""
        _check_masks(runner, data_batch)


def _heads(model: nn.Module) -> dict[str, int]:
    """Number of classes of each head, by its place in the config."""
    heads = {}
    for name in ('decode_head', 'auxiliary_head'):
        head = getattr(model, name, None)
        # Several auxiliary heads are a list.
        several = head if isinstance(head, nn.ModuleList) else [head]
        for one in several:
            if hasattr(one, 'num_classes'):
                heads[name] = one.num_classes
    return heads


def _check_masks(runner: Runner, batch: Mapping | None) -> None:
    heads = _heads(bare_model(runner.model))
    samples: Sequence = (batch or {}).get('data_samples') or []
    if not heads:
        return
    count = min(heads.values())
    for sample in samples:
        if 'gt_sem_seg' not in sample:
            continue
        mask = sample.gt_sem_seg.data
        wrong = mask[(mask >= count) & (mask != IGNORED)]
        if wrong.numel():
            path = sample.metainfo.get('seg_map_path', 'a mask')
            raise ValueError(
                f'{path} has pixels of the classes '
                f'{sorted(set(wrong.tolist()))[:8]}, but the classes are '
                f'0 ... {count - 1} (and {IGNORED}: ignored). Masks hold one '
                'number of a class for each pixel, no colours; '
                'reduce_zero_label=True takes 1 off each.'
            )
