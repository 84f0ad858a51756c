"""The numbers of several runs of the demo side by side."""

from statistics import mean, stdev

from .summary import TRANSFER_METRICS, expectations
from .tables import ratio_name

# What must be the same for the runs to be comparable.
SHARED = ('versions', 'machine', 'linear_config')
CLASSIFICATION = ('knn_top1', 'linear_top1')


def collect_seeds(summaries: list[dict]) -> dict:
    """Put the summaries of runs with different seeds together.

    Args:
        summaries (list[dict]): Contents of ``summary.json`` of each run.

    Returns:
        dict: ``runs`` (scores, seconds and whether the expectations held, for
        each seed), ``mean`` and ``std`` (of the sample, 0 for one run) of the
        scores in percent by initialisation, and what the runs share.

    Raises:
        ValueError: If there is no run, a seed is there twice, a run was
            reduced, or the runs differ in more than their seed.
    """
    _check(summaries)
    summaries = sorted(summaries, key=lambda summary: summary['seed'])
    scores = [_scores(summary) for summary in summaries]
    names = list(scores[0])
    runs = [
        dict(
            seed=summary['seed'],
            as_expected=all(held for _, held in expectations(summary)),
            scores=score,
            pretrain_seconds=[e['seconds'] for e in summary['pretrain']],
            total_seconds=summary['total_seconds'],
        )
        for summary, score in zip(summaries, scores, strict=True)
    ]
    return dict(
        mean=_over_seeds(scores, names, mean),
        std=_over_seeds(
            scores, names, lambda v: stdev(v) if len(v) > 1 else 0.0
        ),
        runs=runs,
        epochs=[e['epochs'] for e in summaries[0]['pretrain']],
        configs=[e['config'] for e in summaries[0]['pretrain']],
        **{key: summaries[0][key] for key in SHARED},
    )


def _check(summaries: list[dict]) -> None:
    if not summaries:
        raise ValueError('no summary given')
    seeds = [summary['seed'] for summary in summaries]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f'a seed is there twice: {seeds}')
    if any(summary['quick'] for summary in summaries):
        raise ValueError('a run was reduced (--quick); its numbers are none')
    for summary in summaries:
        for key in SHARED:
            if summary[key] != summaries[0][key]:
                raise ValueError(
                    f'runs of seed {seeds[0]} and {summary["seed"]} differ in '
                    f'{key}: {summaries[0][key]} and {summary[key]}'
                )
        if ('detection' in summary) != ('detection' in summaries[0]):
            raise ValueError('only some of the runs went on to transfer')


def _scores(summary: dict) -> dict[str, dict[str, float]]:
    entries = [summary['random_init'], *summary['pretrain']]
    ratios = [None, *(e['label_ratio'] for e in summary['pretrain'])]
    scores = {
        ratio_name(ratio): {key: entry[key] for key in CLASSIFICATION}
        for ratio, entry in zip(ratios, entries, strict=True)
    }
    for _, task, key in TRANSFER_METRICS:
        # In the same order: random weights, then by share of labels.
        for score, entry in zip(
            scores.values(), summary.get(task, []), strict=False
        ):
            score[key] = entry[key]
    return scores


def _over_seeds(scores, names, function) -> dict:
    return {
        name: {
            key: round(function([score[name][key] for score in scores]), 2)
            for key in scores[0][name]
        }
        for name in names
    }
