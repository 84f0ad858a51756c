"""Resolved configs of the demo's detection and segmentation runs."""

from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config

from .configs import load_config
from .settings import DETECTION_CONFIG, SEGMENTATION_CONFIG, DemoSettings

# --quick: three steps of training.
QUICK_SCENES = dict(train=24, val=8)


def require_transfer() -> None:
    """See that what detection and segmentation need is installed.

    Raises:
        ImportError: If mmdet or mmseg is missing, or mmcv has no compiled
            ops.
    """
    missing = [name for name in ('mmdet', 'mmseg') if find_spec(name) is None]
    # mmcv itself imports without its ops; they are one file.
    if find_spec('mmcv._ext') is None:
        missing.append("mmcv's compiled ops")
    if missing:
        raise ImportError(
            f'detection and segmentation need {", ".join(missing)}, which is '
            'not installed: run tools/install.sh without --no-transfer, or '
            'run the demo with --no-transfer'
        )


def scenes_dir(settings: DemoSettings) -> Path:
    """Folder of the composed scenes."""
    return settings.stages_dir / 'scenes' / 'data'


def scene_counts(settings: DemoSettings) -> dict[str, int]:
    """Number of scenes of each split."""
    return QUICK_SCENES if settings.quick else settings.scenes


def detection_config(settings: DemoSettings, checkpoint: Path) -> Config:
    """Config of detection and instance segmentation.

    Args:
        settings (DemoSettings): The run.
        checkpoint (Path): Of the pre-training that is judged.

    Returns:
        Config: Resolved, without ``work_dir`` and without validation between
        epochs: the last one is tested.
    """
    cfg = _transfer_config(settings, DETECTION_CONFIG, checkpoint)
    annotations = scenes_dir(settings) / 'annotations' / 'instances_val.json'
    cfg.test_evaluator.ann_file = str(annotations)
    return cfg


def segmentation_config(settings: DemoSettings, checkpoint: Path) -> Config:
    """Config of semantic segmentation; see :func:`detection_config`."""
    return _transfer_config(settings, SEGMENTATION_CONFIG, checkpoint)


def _transfer_config(
    settings: DemoSettings, name: str, checkpoint: Path
) -> Config:
    cfg = load_config(settings, name)
    cfg.model.backbone.init_cfg.checkpoint = str(checkpoint)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(scenes_dir(settings))
    for field in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        cfg[field] = None
    if settings.quick:
        cfg.train_cfg.max_epochs = 1
    return cfg
