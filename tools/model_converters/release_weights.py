r"""Write a backbone of a finished study as a file to be shared.

    python tools/model_converters/release_weights.py \
        work_dirs/demo '100 % labels' configs/demo/unimoco_resnet18_fmnist.py

The folder ``weights`` beside the config gets the backbone in half precision,
``<config>-<hash>.safetensors``, and the log of its training,
``<config>-<hash>.json``; older ones of the same config are removed. Printed is
what belongs into the metafile there; its scores are those of the study, in
which the weights were not rounded.
"""

import argparse
import hashlib
import io
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path

import torch
import yaml

# Packages print what they lack when they are imported.
with redirect_stdout(io.StringIO()):
    from mmunimoco.converters.export import backbone_of
    from mmunimoco.converters.files import write_safetensors
    from mmunimoco.study.plan import last_checkpoint
    from mmunimoco.study.records import Results
    from mmunimoco.utils.safe_load import read_checkpoint

# Type of an evaluation -> its metric, and the name of that in metafiles. The
# two linear probes are different protocols.
SCORES = {
    'knn': ('knn/top1', 'kNN top-1'),
    'cached_linear': ('top1', 'Linear top-1 on cached features'),
    'linear': ('accuracy/top1', 'Linear top-1'),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('work_dir', type=Path, help='output of the study')
    parser.add_argument('variant', help='its name in the study')
    parser.add_argument('config', type=Path, help='the config of this name')
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of the run (default: 0)'
    )
    args = parser.parse_args(argv)
    records = [
        record
        for record in Results(args.work_dir / 'results.jsonl').records
        if record['status'] == 'done'
        and record['variant'] == args.variant
        and record['seed'] == args.seed
    ]
    trained = [r for r in records if r['evaluation'] == 'pretrain']
    if not trained:
        print(
            f'release_weights: {args.work_dir} has no finished run of '
            f'{args.variant} with seed {args.seed}',
            file=sys.stderr,
        )
        return 1
    # Of a run that was repeated the last record counts.
    pretrain = trained[-1]
    folder = args.work_dir / pretrain['folder']
    scores = read_scores(evaluations_of(pretrain, records))
    entry = release(folder, args.config, scores)
    print(yaml.safe_dump([entry], sort_keys=False))
    return 0


def evaluations_of(pretrain: dict, records: Iterable[dict]) -> list[dict]:
    """The last record of each evaluation of one pre-training.

    Evaluations lie beside the pre-training whose weights they had. Those in
    another folder may be of weights that were trained before.

    Args:
        pretrain (dict): Its record.
        records (Iterable[dict]): Finished runs of its variant and seed.
    """
    place = Path(pretrain['folder']).parent
    found = {
        record['evaluation']: record
        for record in records
        if Path(record['folder']).parent == place
    }
    return list(found.values())


def read_scores(records: Iterable[dict]) -> dict[str, float]:
    """Read the scores that metafiles have, in percent."""
    scores = {}
    for record in records:
        metric, title = SCORES.get(record['protocol']['type'], (None, None))
        if metric in record['metrics']:
            scores[title] = round(record['metrics'][metric]['last'], 2)
    return scores


def release(folder: Path, config: Path, scores: dict[str, float]) -> dict:
    """Write the backbone of one pre-training.

    Args:
        folder (Path): Its work folder.
        config (Path): Its config.
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
    # One for each start of a run that was interrupted.
    logs = sorted(folder.glob('*/vis_data/scalars.json'))
    if not logs:
        raise FileNotFoundError(f'there is no log in {folder}')
    weights = config.parent / 'weights'
    weights.mkdir(exist_ok=True)
    part = weights / f'{config.stem}.safetensors'
    write_safetensors(part, state, dict(config=config.as_posix()))
    digest = hashlib.md5(part.read_bytes()).hexdigest()
    for old in weights.glob(f'{config.stem}-????????.*'):
        old.unlink()
    target = weights / f'{config.stem}-{digest[:8]}.safetensors'
    part.rename(target)
    log = target.with_suffix('.json')
    log.write_text(''.join(path.read_text() for path in logs))
    return {
        'Name': config.stem,
        'Results': [dict(Task='Image Classification', Metrics=scores)],
        'Weights': target.as_posix(),
        'MD5': digest,
        'Training Log': log.as_posix(),
    }


def _halve(value: torch.Tensor) -> torch.Tensor:
    return value.half() if value.is_floating_point() else value


if __name__ == '__main__':
    sys.exit(main())
