"""Write the backbones of a finished demo as files to be shared.

    python -m demo.release_weights work_dirs/demo

For each share of labels ``configs/demo/weights/`` gets the backbone in half
precision, ``<config>-<hash>.safetensors``, and the log of its training,
``<config>-<hash>.json``; older ones of the same config are removed. Printed is
what belongs into ``configs/demo/metafile.yml``.
"""

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path

import torch
import yaml

from mmunimoco.converters.export import backbone_of
from mmunimoco.converters.files import write_safetensors
from mmunimoco.utils.safe_load import read_checkpoint

from .settings import PRETRAIN_CONFIGS, ROOT, backbone_name

TARGET = ROOT / 'configs/demo/weights'


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('work_dir', type=Path, help='output of the demo')
    args = parser.parse_args(argv)
    TARGET.mkdir(exist_ok=True)
    for ratio, config in PRETRAIN_CONFIGS.items():
        folder = args.work_dir / 'stages' / backbone_name(ratio)
        entry = release(folder, Path(config).stem)
        print(yaml.safe_dump([entry], sort_keys=False))
    return 0


def release(folder: Path, name: str) -> dict:
    """Write the backbone of one stage.

    Args:
        folder (Path): The stage.
        name (str): Name of its config.

    Returns:
        dict: Of the metafile.
    """
    state = {
        f'backbone.{key}': _halve(value)
        for key, value in backbone_of(
            read_checkpoint(folder / 'final.pth')
        ).items()
    }
    part = TARGET / f'{name}.safetensors'
    write_safetensors(part, state, dict(config=f'configs/demo/{name}.py'))
    digest = hashlib.md5(part.read_bytes()).hexdigest()
    for old in TARGET.glob(f'{name}-????????.*'):
        old.unlink()
    target = TARGET / f'{name}-{digest[:8]}.safetensors'
    part.rename(target)
    (log,) = folder.glob('*/vis_data/scalars.json')
    shutil.copyfile(log, target.with_suffix('.json'))
    results = {
        stage: json.loads((path / 'stage.json').read_text())['result']
        for stage, path in (
            ('knn', folder),
            ('linear', folder.with_name(f'{folder.name}-linear')),
        )
    }
    return dict(
        Name=name,
        Results=[
            dict(
                Task='Image Classification',
                Dataset='Fashion-MNIST subset',
                Metrics={
                    'kNN top-1': results['knn']['knn_top1'],
                    'Linear top-1': results['linear']['linear_top1'],
                },
            )
        ],
        Weights=target.relative_to(ROOT).as_posix(),
        MD5=digest,
    )


def _halve(value: torch.Tensor) -> torch.Tensor:
    return value.half() if value.is_floating_point() else value


if __name__ == '__main__':
    sys.exit(main())
