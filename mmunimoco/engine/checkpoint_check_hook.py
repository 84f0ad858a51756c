"""Refuse a checkpoint of which nothing fits the model."""

from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS

from mmunimoco.utils.checkpoint import bare_model, check_match, state_dict_of


@HOOKS.register_module()
class CheckpointCheckHook(Hook):
    """Refuse a checkpoint of which nothing fits the model.

    mmengine loads ``load_from``, and the checkpoint of ``tools/test.py``,
    leniently: with no key in common it evaluates random weights. This hook
    turns that into an error.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare a checkpoint, already read, with the model.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What was read; not in the model yet.

        Raises:
            ValueError: If no parameter of the model is in it.
        """
        model = bare_model(runner.model)
        state = state_dict_of(checkpoint, unwrap=True)
        check_match(model, state, 'the checkpoint')
