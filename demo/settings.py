"""What a run of the demo is: its settings, and where its files are."""

from dataclasses import dataclass, field
from pathlib import Path

import mmunimoco

# Share of labels -> config of `configs/demo/`.
PRETRAIN_CONFIGS = {
    0.0: 'unimoco_resnet18_fmnist-0pct.py',
    0.1: 'unimoco_resnet18_fmnist-10pct.py',
    1.0: 'unimoco_resnet18_fmnist.py',
}
LINEAR_CONFIG = 'resnet18_linear_fmnist.py'
DETECTION_CONFIG = 'mask-rcnn_r18-fpn_scenes.py'
SEGMENTATION_CONFIG = 'fcn_r18_scenes.py'


def find_config_dir(name: str = 'demo') -> Path:
    """Find a folder of configs of the checkout or of the installed package.

    Args:
        name (str): Folder in ``configs``. Defaults to 'demo'.

    Returns:
        Path: The folder.

    Raises:
        FileNotFoundError: If neither has it.
    """
    package = Path(mmunimoco.__file__).resolve().parent
    candidates = [package.parent / 'configs', package / '.mim' / 'configs']
    for candidate in candidates:
        if (candidate / name).is_dir():
            return candidate / name
    places = ' or '.join(str(c / name) for c in candidates)
    raise FileNotFoundError(
        f'the configs of {name} are missing: there is no {places}; '
        'reinstall mmunimoco.'
    )


@dataclass(frozen=True)
class DemoSettings:
    """What a run of the demo is.

    Args:
        work_dir (Path): Where everything is written.
        seed (int): Seed of weights, data order, augmentation and of the
            choice of labeled images. Defaults to 0.
        quick (bool): Same path, much reduced: for checking that everything
            works, not for results. Defaults to False.
        transfer (bool): Also to detection and segmentation, which need
            mmdet and mmseg. Defaults to False.
        scenes (dict[str, int]): How many scenes to transfer to, for each
            split. Defaults to 100 and 200: few for training is the case that
            pre-training is meant for.
        config_dir (Path): Folder with the configs. Defaults to the one that
            comes with the project.

    Raises:
        ValueError: If the seed is negative.
    """

    work_dir: Path
    seed: int = 0
    quick: bool = False
    transfer: bool = False
    scenes: dict[str, int] = field(
        default_factory=lambda: dict(train=100, val=200)
    )
    config_dir: Path = field(default_factory=find_config_dir)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f'--seed must be 0 or more, got {self.seed}')

    @property
    def stages_dir(self) -> Path:
        """Folder of checkpoints, logs and stage records."""
        return self.work_dir / 'stages'
