"""The numbers of a run of the demo, as one dictionary."""

from .settings import (
    DETECTION_CONFIG,
    LINEAR_CONFIG,
    PRETRAIN_CONFIGS,
    SEGMENTATION_CONFIG,
    DemoSettings,
)
from .stages import RANDOM_INIT, label_name
from .transfer import INITS, SCENES, TASKS, task_stage_name

PRETRAIN_FIELDS = ('label_ratio', 'knn_top1', 'epochs', 'seconds')
# What readers see, and where in the summary it is.
TRANSFER_METRICS = (
    ('Box AP', 'detection', 'bbox_mAP'),
    ('Mask AP', 'detection', 'segm_mAP'),
    ('mIoU', 'segmentation', 'mIoU'),
)


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
        dict: What ``summary.json`` holds; accuracies, AP (averaged over IoU
        0.5 ... 0.95) and mIoU in percent, times in seconds. ``detection``
        and ``segmentation`` are there if the settings ask for transfer.
    """
    pretrain = [
        dict(
            {key: results[label_name(ratio)][key] for key in PRETRAIN_FIELDS},
            linear_top1=_linear(results, ratio),
            config=f'configs/demo/{PRETRAIN_CONFIGS[ratio]}',
            curves=curves[ratio],
        )
        for ratio in PRETRAIN_CONFIGS
    ]
    summary = dict(
        pretrain=pretrain,
        random_init=dict(
            knn_top1=results[RANDOM_INIT]['knn_top1'],
            linear_top1=_linear(results, None),
        ),
        total_seconds=_total_seconds(results),
        seed=settings.seed,
        quick=settings.quick,
        linear_config=f'configs/demo/{LINEAR_CONFIG}',
        versions=versions,
        machine=machine,
    )
    if settings.transfer:
        summary.update(_transfer(results))
    return summary


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
        *_transfer_expectations(summary),
    ]


def _total_seconds(results: dict[str, dict]) -> float:
    """Time in which at least one stage ran; several may run at a time."""
    spans = sorted(
        (result['ended'] - result['seconds'], result['ended'])
        for result in results.values()
    )
    total, end_so_far = 0.0, float('-inf')
    for start, end in spans:
        total += max(0.0, end - max(start, end_so_far))
        end_so_far = max(end_so_far, end)
    return round(total, 1)


def _linear(results: dict[str, dict], label_ratio: float | None) -> float:
    return results[f'{label_name(label_ratio)}-linear']['linear_top1']


def _transfer(results: dict[str, dict]) -> dict:
    scores = {
        task.name: [
            dict(
                init='random' if ratio is None else label_name(ratio),
                **{
                    key: results[task_stage_name(task, ratio)][key]
                    for key in task.metrics
                },
            )
            for ratio in INITS
        ]
        for task in TASKS
    }
    configs = (DETECTION_CONFIG, SEGMENTATION_CONFIG)
    scenes = {key: results[SCENES][key] for key in ('train', 'val')}
    return dict(
        **scores,
        transfer=dict(
            unit='percent',
            scenes=scenes,
            configs=[f'configs/demo/{name}' for name in configs],
        ),
    )


def _transfer_expectations(summary: dict) -> list[tuple[str, bool]]:
    found = []
    for name, task, key in TRANSFER_METRICS:
        if task not in summary:
            continue
        random, *pretrained = (entry[key] for entry in summary[task])
        gains = [value - random for value in pretrained]
        text = ', '.join(f'{gain:+.1f}' for gain in gains)
        found.append(
            (
                f'{name}: pre-training with 0, 10 and 100 % of the labels '
                f'against random weights: {text} points (expected: more '
                'than 0 each).',
                min(gains) > 0,
            )
        )
    return found
