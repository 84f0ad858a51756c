"""Settings of a run of the demo, and the configs that follow from them."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]
# Share of labels -> config in `configs/demo`.
PRETRAIN_CONFIGS = {
    0.0: 'unimoco_resnet18_fmnist-0pct.py',
    0.1: 'unimoco_resnet18_fmnist-10pct.py',
    1.0: 'unimoco_resnet18_fmnist.py',
}
# The baseline by cross-entropy, for the same shares of labels.
SUPERVISED_CONFIGS = {
    0.1: 'resnet18_supervised_fmnist-10pct.py',
    1.0: 'resnet18_supervised_fmnist.py',
}
LINEAR_CONFIG = 'resnet18_linear_fmnist.py'
DETECTION_CONFIG = 'mask-rcnn_r18-fpn_scenes.py'
SEGMENTATION_CONFIG = 'fcn_r18_scenes.py'
# The backbones that are compared: random weights (None), then one for each
# share of labels in pre-training.
BACKBONES = (None, *PRETRAIN_CONFIGS)

# --quick: a few steps on a part of the data.
QUICK_IMAGES = 1000
QUICK_EPOCHS = 2
QUICK_SCENES = dict(train=24, val=8)


@dataclass(frozen=True)
class DemoSettings:
    """Settings of a run.

    Attributes:
        work_dir: Folder of all output.
        seed: Seed of weights, data order, augmentation, scenes and of the
            choice of labeled images.
        quick: Run all stages, but for a few steps each. The numbers mean
            nothing.
        transfer: Also fine-tune on detection and segmentation, which need
            mmdet and mmseg.
        scenes: Number of scenes of each split. There are few training scenes
            because that is the case pre-training is meant for.
        config_dir: Folder of the configs.
    """

    work_dir: Path
    seed: int = 0
    quick: bool = False
    transfer: bool = False
    scenes: dict[str, int] = field(
        default_factory=lambda: dict(train=100, val=200)
    )
    config_dir: Path = ROOT / 'configs' / 'demo'

    @property
    def stages_dir(self) -> Path:
        """Folder of checkpoints, logs and stage records."""
        return self.work_dir / 'stages'

    @property
    def scenes_dir(self) -> Path:
        """Folder of the composed scenes."""
        return self.stages_dir / 'scenes' / 'data'

    @property
    def scene_counts(self) -> dict[str, int]:
        """Number of scenes of each split in this run."""
        return QUICK_SCENES if self.quick else self.scenes


def backbone_name(label_ratio: float | None) -> str:
    """Folder name of a backbone: 'labels-10', or 'random-init' for None."""
    if label_ratio is None:
        return 'random-init'
    return f'labels-{round(100 * label_ratio)}'


def backbone_title(label_ratio: float | None) -> str:
    """Readable name of a backbone: '10 % labels', or 'random weights'."""
    if label_ratio is None:
        return 'random weights'
    return f'{100 * label_ratio:g} % labels'


def backbone_file(settings: DemoSettings, label_ratio: float | None) -> Path:
    """Checkpoint with the weights of a backbone."""
    return settings.stages_dir / backbone_name(label_ratio) / 'final.pth'


def supervised_name(label_ratio: float) -> str:
    """Folder name of a baseline: 'supervised-10'."""
    return f'supervised-{round(100 * label_ratio)}'


def pretrain_config(settings: DemoSettings, label_ratio: float) -> Config:
    """Resolved config of a pre-training with this share of labels."""
    cfg = _load_partial(settings, PRETRAIN_CONFIGS[label_ratio])
    if settings.quick:
        for loop in (cfg.val_cfg, cfg.test_cfg):
            loop.bank_dataloader.dataset.indices = QUICK_IMAGES
    return cfg


def supervised_config(settings: DemoSettings, label_ratio: float) -> Config:
    """Resolved config of cross-entropy with this share of labels."""
    return _load_partial(settings, SUPERVISED_CONFIGS[label_ratio])


def linear_config(settings: DemoSettings, checkpoint: Path) -> Config:
    """Resolved config of a linear probe of a checkpoint."""
    cfg = _load_config(settings, LINEAR_CONFIG)
    cfg.model.backbone.init_cfg.checkpoint = str(checkpoint)
    if settings.quick:
        _shorten(cfg)
        cfg.train_dataloader.dataset.indices = QUICK_IMAGES
    return cfg


def detection_config(settings: DemoSettings, checkpoint: Path) -> Config:
    """Resolved config of detection and instance segmentation."""
    cfg = _transfer_config(settings, DETECTION_CONFIG, checkpoint)
    annotations = settings.scenes_dir / 'annotations' / 'instances_val.json'
    cfg.test_evaluator.ann_file = str(annotations)
    return cfg


def segmentation_config(settings: DemoSettings, checkpoint: Path) -> Config:
    """Resolved config of semantic segmentation."""
    return _transfer_config(settings, SEGMENTATION_CONFIG, checkpoint)


def require_transfer() -> None:
    """Check that detection and segmentation can run.

    Raises:
        ImportError: If mmdet or mmseg is missing, or mmcv has no compiled
            ops.
    """
    missing = [name for name in ('mmdet', 'mmseg') if find_spec(name) is None]
    # mmcv imports without its ops, which are one extension module.
    if find_spec('mmcv._ext') is None:
        missing.append("mmcv's compiled ops")
    if missing:
        raise ImportError(
            f'detection and segmentation need {", ".join(missing)}, which is '
            'not installed: run tools/install.sh without --no-transfer, or '
            'run the demo with --no-transfer'
        )


def _load_config(settings: DemoSettings, name: str) -> Config:
    cfg = Config.fromfile(settings.config_dir / name)
    cfg.randomness.seed = settings.seed
    return cfg


def _load_partial(settings: DemoSettings, name: str) -> Config:
    """Load a config whose training data has partial labels."""
    cfg = _load_config(settings, name)
    partial_labels = cfg.train_dataloader.dataset
    while partial_labels.type != 'PartialLabels':
        partial_labels = partial_labels.dataset
    partial_labels.seed = settings.seed
    if settings.quick:
        _shorten(cfg)
        partial_labels.dataset.indices = QUICK_IMAGES
    return cfg


def _shorten(cfg: Config) -> None:
    cfg.train_cfg.max_epochs = min(cfg.train_cfg.max_epochs, QUICK_EPOCHS)
    cfg.train_cfg.val_interval = 1
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.indices = QUICK_IMAGES // 2


def _transfer_config(
    settings: DemoSettings, name: str, checkpoint: Path
) -> Config:
    cfg = _load_config(settings, name)
    cfg.model.backbone.init_cfg.checkpoint = str(checkpoint)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(settings.scenes_dir)
    # No validation during training: the last epoch is tested.
    for field_name in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        cfg[field_name] = None
    if settings.quick:
        cfg.train_cfg.max_epochs = 1
    return cfg
