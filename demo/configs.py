"""Resolved configs of the demo's runs."""

from pathlib import Path

from mmengine.config import Config, ConfigDict

from .settings import LINEAR_CONFIG, PRETRAIN_CONFIGS, DemoSettings

# --quick: a part of the data for a few steps, to see that everything works.
QUICK_IMAGES = 1000
QUICK_EPOCHS = 2


def pretrain_config(settings: DemoSettings, label_ratio: float) -> Config:
    """Config of a pre-training.

    Args:
        settings (DemoSettings): The run.
        label_ratio (float): Share of labels, one of ``PRETRAIN_CONFIGS``.

    Returns:
        Config: Resolved, without ``work_dir``.
    """
    cfg = load_config(settings, PRETRAIN_CONFIGS[label_ratio])
    partial_labels = _partial_labels(cfg.train_dataloader.dataset)
    partial_labels.seed = settings.seed
    if settings.quick:
        _shorten(cfg)
        partial_labels.dataset.indices = QUICK_IMAGES
        for loop in (cfg.val_cfg, cfg.test_cfg):
            loop.bank_dataloader.dataset.indices = QUICK_IMAGES
    return cfg


def linear_config(settings: DemoSettings, checkpoint: Path) -> Config:
    """Config of a linear probe.

    Args:
        settings (DemoSettings): The run.
        checkpoint (Path): Of the pre-training that is judged.

    Returns:
        Config: Resolved, without ``work_dir``.
    """
    cfg = load_config(settings, LINEAR_CONFIG)
    cfg.model.backbone.init_cfg.checkpoint = str(checkpoint)
    if settings.quick:
        _shorten(cfg)
        cfg.train_dataloader.dataset.indices = QUICK_IMAGES
    return cfg


def _partial_labels(dataset: ConfigDict) -> ConfigDict:
    """The part of a dataset's config that says which labels are kept."""
    while dataset.type != 'PartialLabels':
        dataset = dataset.dataset
    return dataset


def load_config(settings: DemoSettings, name: str) -> Config:
    """Read a config of the demo and give it the seed.

    Args:
        settings (DemoSettings): The run.
        name (str): File name in ``configs/demo``.

    Returns:
        Config: Resolved.

    Raises:
        FileNotFoundError: If there is no such config.
    """
    path = settings.config_dir / name
    if not path.is_file():
        raise FileNotFoundError(f'no config {path}')
    cfg = Config.fromfile(path)
    cfg.randomness.seed = settings.seed
    return cfg


def _shorten(cfg: Config) -> None:
    cfg.train_cfg.max_epochs = min(cfg.train_cfg.max_epochs, QUICK_EPOCHS)
    cfg.train_cfg.val_interval = 1
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.indices = QUICK_IMAGES // 2
