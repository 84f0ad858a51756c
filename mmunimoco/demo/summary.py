"""The numbers of a run of the demo, as one dictionary."""

from .settings import LINEAR_CONFIG, PRETRAIN_CONFIGS, DemoSettings
from .stages import RANDOM_INIT, label_name


def build_summary(
    settings: DemoSettings,
    results: dict[str, dict],
    curves: dict[float, dict],
    versions: dict[str, str],
    machine: dict[str, str | int],
) -> dict:
    """Put the results of all stages together.

    Args:
        settings (DemoSettings): The run.
        results (dict[str, dict]): Result of each stage by its name.
        curves (dict[float, dict]): For each share of labels what
            :func:`read_curves` gives.
        versions (dict[str, str]): Versions of the packages.
        machine (dict): Description of the machine.

    Returns:
        dict: What ``summary.json`` holds; accuracies in percent, times in
        seconds.
    """
    pretrain = [
        dict(
            results[label_name(ratio)],
            linear_top1=_linear(results, ratio),
            config=f'configs/demo/{PRETRAIN_CONFIGS[ratio]}',
            curves=curves[ratio],
        )
        for ratio in PRETRAIN_CONFIGS
    ]
    return dict(
        pretrain=pretrain,
        random_init=dict(
            knn_top1=results[RANDOM_INIT]['knn_top1'],
            linear_top1=_linear(results, None),
        ),
        total_seconds=round(sum(r['seconds'] for r in results.values()), 1),
        seed=settings.seed,
        quick=settings.quick,
        linear_config=f'configs/demo/{LINEAR_CONFIG}',
        versions=versions,
        machine=machine,
    )


def expectations(summary: dict) -> list[tuple[str, bool]]:
    """Compare a run with what the method promises.

    Args:
        summary (dict): From :func:`build_summary`.

    Returns:
        list[tuple[str, bool]]: Sentences with the numbers, and whether the
        expectation in it held.
    """
    knn = {e['label_ratio']: e['knn_top1'] for e in summary['pretrain']}
    none, some, full = (knn[ratio] for ratio in sorted(knn))
    random = summary['random_init']['knn_top1']
    return [
        (
            f'No labels beat random weights by {none - random:.1f} points of '
            'kNN (expected: more than 0).',
            none > random,
        ),
        (
            f'All labels beat no labels by {full - none:.1f} points of kNN '
            '(expected: at least 5).',
            full - none >= 5,
        ),
        (
            f'10 % of the labels are {some - none:.1f} points above none and '
            f'{full - some:.1f} below all (expected: in between).',
            none < some < full,
        ),
    ]


def _linear(results: dict[str, dict], label_ratio: float | None) -> float:
    return results[f'{label_name(label_ratio)}-linear']['linear_top1']
