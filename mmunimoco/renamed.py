"""Names that older configs use, each with what replaces it.

Building one raises an error that says what to write instead; the registry
alone would only say that it does not know the name.
"""

from collections.abc import Callable
from typing import NoReturn

from mmengine.registry import Registry
from mmpretrain.registry import DATASETS, HOOKS

RENAMED: dict[Registry, dict[str, str]] = {
    DATASETS: {
        'DemoFashionMNIST': "type='NpzImages' with ann_file=<.npz file>",
    },
    HOOKS: {
        **dict.fromkeys(
            [
                'CheckpointCheckHook',
                'ClassNamesCheckHook',
                'LabelCheckHook',
                'SegmentationCheckHook',
                'TransferCheckHook',
            ],
            'PreflightHook (once, it does what the five did)',
        ),
        'ChannelsLastHook': 'StepOptionsHook with channels_last=True',
        'CompileEncodersHook': 'StepOptionsHook with compile=True',
        'GradientCheckpointHook': (
            'StepOptionsHook with gradient_checkpointing=True'
        ),
        'ImagesToDeviceHook': 'StepOptionsHook with images_on_device=True',
    },
}


def _refuse(name: str, replacement: str) -> Callable[..., NoReturn]:
    def build(**_: object) -> NoReturn:
        raise ValueError(
            f"type='{name}' was renamed: use {replacement} (see CHANGELOG.md)"
        )

    return build


def register_renamed() -> None:
    """Register every old name with an error that names its replacement."""
    for registry, names in RENAMED.items():
        for name, replacement in names.items():
            registry.register_module(
                name=name, module=_refuse(name, replacement)
            )
