"""The report of any work folders of mmengine."""

import os
from collections.abc import Sequence
from pathlib import Path

from mmunimoco.utils.config_text import config_literal

from .configs import label_ratio
from .records import read_curves, read_loss, summarise

RUN = 'run'


def records_of(
    runs: Sequence[str],
    report_folder: Path,
    lower_is_better: Sequence[str] = (),
) -> list[dict]:
    """Records of runs that no study has made.

    Args:
        runs (Sequence[str]): Work folders, each as ``FOLDER`` or
            ``NAME=FOLDER``. Runs of the same name are seeds of one variant;
            without a name it is that of the folder.
        report_folder (Path): Links are relative to it.
        lower_is_better (Sequence[str]): Metrics of which the lower value is
            the better one, such as errors. Defaults to none.

    Raises:
        FileNotFoundError: If a folder does not exist.
        ValueError: If a folder has no logged validation or is named twice,
            runs of one name have the same seed, or no run logs a metric of
            ``lower_is_better``.
    """
    folders: dict[Path, str] = {}
    for run in runs:
        place = _split(run)[1].resolve()
        if place in folders:
            raise ValueError(
                f'{folders[place]} and {run} are the same work folder: name '
                'each once'
            )
        folders[place] = run
    records = [_record(run, report_folder, lower_is_better) for run in runs]
    logged = {name for record in records for name in record['metrics']}
    unknown = sorted(set(lower_is_better) - logged)
    if unknown:
        raise ValueError(
            f'--lower-is-better: no run logs {", ".join(unknown)}; they log '
            f'{", ".join(sorted(logged))}'
        )
    seen: dict[tuple[str, int], str] = {}
    for run, record in zip(runs, records, strict=True):
        key = record['variant'], record['seed']
        if record['seed'] is not None and key in seen:
            raise ValueError(
                f'{seen[key]} and {run} would both be {key[0]!r} with seed '
                f'{key[1]}: name them as NAME=FOLDER, the same name for the '
                'seeds of one method'
            )
        seen[key] = run
    return records


def direction_text(lower_is_better: Sequence[str]) -> str:
    """What the page says on which values are the better ones."""
    if not lower_is_better:
        return (
            'Of every metric the higher value is taken as the better one; '
            'name others by --lower-is-better.'
        )
    return (
        f'Of {", ".join(lower_is_better)} the lower value is the better one, '
        'of all other metrics the higher one.'
    )


def _record(
    run: str, report_folder: Path, lower_is_better: Sequence[str]
) -> dict:
    name, folder = _split(run)
    if not folder.is_dir():
        raise FileNotFoundError(f'the work folder {folder} does not exist')
    curves = read_curves(folder)
    if not curves:
        raise ValueError(
            f'{folder} has no validation in */vis_data/scalars.json: give '
            'the --work-dir of a training that validates'
        )
    config = max(folder.glob('*/vis_data/config.py'), default=None)
    text = '' if config is None else config.read_text(errors='replace')
    log = max(folder.glob('*/*.log'), default=None)
    by_epoch = config_literal(text, 'train_cfg', 'max_epochs') is not None
    return dict(
        status='done',
        variant=name,
        group=name,
        grid={},
        label_ratio=_label_ratio(text),
        seed=config_literal(text, 'randomness', 'seed'),
        evaluation=RUN,
        protocol=dict(type=RUN, lower_is_better=list(lower_is_better)),
        metrics={
            name: summarise(curve, name in lower_is_better)
            for name, curve in curves.items()
        },
        curves=curves,
        loss=read_loss(folder),
        unit='epoch' if by_epoch else 'iteration',
        log=None if log is None else os.path.relpath(log, report_folder),
        config=(
            None if config is None else os.path.relpath(config, report_folder)
        ),
    )


def _split(run: str) -> tuple[str, Path]:
    name, found, folder = run.partition('=')
    if found and not Path(run).is_dir():
        return name, Path(folder)
    return Path(run).resolve().name, Path(run)


def _label_ratio(text: str) -> float | None:
    dataset = config_literal(text, 'train_dataloader', 'dataset')
    return label_ratio(dict(train_dataloader=dict(dataset=dataset)))
