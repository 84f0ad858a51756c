r"""Combine the summaries of runs with different seeds into one JSON.

for seed in 0 1 2; do
    python -m demo --seed $seed --work-dir work_dirs/demo_seed$seed
done
python -m demo.collect_seeds work_dirs/demo_seed?/summary.json \
    --out docs/benchmarks/demo_seeds.json
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import mean, stdev

from mmunimoco.utils.atomic import write_json

from .results import TRANSFER_METRICS, expectations, row_name

# Must be equal for the runs to be comparable.
SHARED = ('versions', 'machine', 'linear_config')


def collect_seeds(summaries: list[dict]) -> dict:
    """Combine the summaries of runs with different seeds.

    Args:
        summaries (list[dict]): Contents of ``summary.json`` of each run.

    Returns:
        dict: ``runs`` (scores, seconds and whether all expectations are met,
        for each seed), ``mean`` and ``std`` (of the sample, 0 for one run) of
        the scores in percent by initialisation, and what the runs share.

    Raises:
        ValueError: If a seed occurs twice, a run is reduced, or the runs
            differ in more than their seed.
    """
    summaries = sorted(summaries, key=lambda summary: summary['seed'])
    _check(summaries)
    scores = [_scores(summary) for summary in summaries]
    values = {
        name: {key: [score[name][key] for score in scores] for key in entry}
        for name, entry in scores[0].items()
    }
    first = summaries[0]
    return dict(
        mean={
            name: {key: round(mean(v), 2) for key, v in entry.items()}
            for name, entry in values.items()
        },
        std={
            name: {
                key: round(stdev(v), 2) if len(v) > 1 else 0.0
                for key, v in entry.items()
            }
            for name, entry in values.items()
        },
        runs=[
            dict(
                seed=summary['seed'],
                as_expected=all(met for _, met in expectations(summary)),
                scores=score,
                pretrain_seconds=[e['seconds'] for e in summary['pretrain']],
                total_seconds=summary['total_seconds'],
            )
            for summary, score in zip(summaries, scores, strict=True)
        ],
        epochs=[e['epochs'] for e in first['pretrain']],
        configs=[e['config'] for e in first['pretrain']],
        **{key: first[key] for key in SHARED},
    )


def _check(summaries: list[dict]) -> None:
    first = summaries[0]
    seeds = [summary['seed'] for summary in summaries]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f'a seed occurs twice: {seeds}')
    for seed, summary in zip(seeds, summaries, strict=True):
        if summary['quick']:
            raise ValueError(
                f'the run of seed {seed} is reduced (--quick); its numbers '
                'mean nothing'
            )
        for key in SHARED:
            if summary[key] != first[key]:
                raise ValueError(
                    f'the runs of seeds {seeds[0]} and {seed} differ in '
                    f'{key}: {first[key]} and {summary[key]}'
                )
        if ('detection' in summary) != ('detection' in first):
            raise ValueError('only some of the runs include transfer')


def _scores(summary: dict) -> dict[str, dict[str, float]]:
    scores = {}
    for index, entry in enumerate(
        [summary['random_init'], *summary['pretrain']]
    ):
        score = {key: entry[key] for key in ('knn_top1', 'linear_top1')}
        for task, key in TRANSFER_METRICS.values():
            # In the same order: random weights, then by share of labels.
            if task in summary:
                score[key] = summary[task][index][key]
        scores[row_name(entry.get('label_ratio'))] = score
    return scores


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('summaries', type=Path, nargs='+')
    parser.add_argument('--out', type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        summaries = [json.loads(path.read_text()) for path in args.summaries]
        write_json(args.out, collect_seeds(summaries))
    except (OSError, ValueError) as error:
        print(f'collect_seeds: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
