"""Write the backbones of a finished demo as files to be shared.

    python -m demo.release_weights work_dirs/demo

For each share of labels ``configs/demo/weights/`` gets the backbone in half
precision, ``<config>-<hash>.safetensors``, and the log of its training,
``<config>-<hash>.json``; older ones of the same config are removed. Printed is
what belongs into ``configs/demo/metafile.yml``.
"""

import argparse
import hashlib
import shutil
import sys
from pathlib import Path

import torch
import yaml

from mmunimoco.converters.export import backbone_of
from mmunimoco.converters.files import write_safetensors
from mmunimoco.study.plan import last_checkpoint
from mmunimoco.study.records import Results
from mmunimoco.utils.safe_load import read_checkpoint

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / 'configs/demo/weights'
# Variant of the study -> its config.
CONFIGS = {
    '0 % labels': 'unimoco_resnet18_fmnist-0pct',
    '10 % labels': 'unimoco_resnet18_fmnist-10pct',
    '100 % labels': 'unimoco_resnet18_fmnist',
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('work_dir', type=Path, help='output of the demo')
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of the runs (default: 0)'
    )
    args = parser.parse_args(argv)
    TARGET.mkdir(exist_ok=True)
    # Of a run that was repeated the last record counts.
    runs = {
        (record['variant'], record['evaluation']): record
        for record in Results(args.work_dir / 'results.jsonl').records
        if record['status'] == 'done' and record['seed'] == args.seed
    }
    for variant, name in CONFIGS.items():
        if (variant, 'linear') not in runs:
            print(
                f'release_weights: {args.work_dir} has no finished runs of '
                f'{variant} with seed {args.seed}',
                file=sys.stderr,
            )
            return 1
        folder = args.work_dir / runs[variant, 'pretrain']['folder']
        scores = {
            title: runs[variant, evaluation]['metrics'][metric]['last']
            for title, evaluation, metric in (
                ('kNN top-1', 'knn', 'knn/top1'),
                ('Linear top-1', 'linear', 'accuracy/top1'),
            )
        }
        entry = release(folder, name, scores)
        print(yaml.safe_dump([entry], sort_keys=False))
    return 0


def release(folder: Path, name: str, scores: dict[str, float]) -> dict:
    """Write the backbone of one pre-training.

    Args:
        folder (Path): Its work folder.
        name (str): Name of its config.
        scores (dict[str, float]): Its scores in percent.

    Returns:
        dict: Of the metafile.
    """
    state = {
        f'backbone.{key}': _halve(value)
        for key, value in backbone_of(
            read_checkpoint(str(last_checkpoint(folder)))
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
    return dict(
        Name=name,
        Results=[
            dict(
                Task='Image Classification',
                Dataset='Fashion-MNIST subset',
                Metrics={k: round(v, 2) for k, v in scores.items()},
            )
        ],
        Weights=target.relative_to(ROOT).as_posix(),
        MD5=digest,
    )


def _halve(value: torch.Tensor) -> torch.Tensor:
    return value.half() if value.is_floating_point() else value


if __name__ == '__main__':
    sys.exit(main())
