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
from collections.abc import Callable
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
        ValueError: If there is no run, a seed occurs twice, a run is
            reduced, or the runs differ in more than their seed.
    """
    _check(summaries)
    summaries = sorted(summaries, key=lambda summary: summary['seed'])
    scores = [_scores(summary) for summary in summaries]
    runs = [
        dict(
            seed=summary['seed'],
            as_expected=all(met for _, met in expectations(summary)),
            scores=score,
            pretrain_seconds=[e['seconds'] for e in summary['pretrain']],
            total_seconds=summary['total_seconds'],
        )
        for summary, score in zip(summaries, scores, strict=True)
    ]
    first = summaries[0]
    return dict(
        mean=_over_seeds(scores, mean),
        std=_over_seeds(scores, lambda v: stdev(v) if len(v) > 1 else 0.0),
        runs=runs,
        epochs=[e['epochs'] for e in first['pretrain']],
        configs=[e['config'] for e in first['pretrain']],
        **{key: first[key] for key in SHARED},
    )


def _check(summaries: list[dict]) -> None:
    if not summaries:
        raise ValueError('no summary given')
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
            if summary[key] != summaries[0][key]:
                raise ValueError(
                    f'the runs of seeds {seeds[0]} and {seed} differ in '
                    f'{key}: {summaries[0][key]} and {summary[key]}'
                )
        if ('detection' in summary) != ('detection' in summaries[0]):
            raise ValueError('only some of the runs include transfer')


def _scores(summary: dict) -> dict[str, dict[str, float]]:
    entries = [summary['random_init'], *summary['pretrain']]
    scores = {
        row_name(entry.get('label_ratio')): {
            key: entry[key] for key in ('knn_top1', 'linear_top1')
        }
        for entry in entries
    }
    # In the same order: random weights, then by share of labels.
    for task, key in TRANSFER_METRICS.values():
        for score, entry in zip(
            scores.values(), summary.get(task, []), strict=False
        ):
            score[key] = entry[key]
    return scores


def _over_seeds(
    scores: list[dict[str, dict[str, float]]],
    function: Callable[[list[float]], float],
) -> dict[str, dict[str, float]]:
    return {
        name: {
            key: round(function([score[name][key] for score in scores]), 2)
            for key in entry
        }
        for name, entry in scores[0].items()
    }


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
