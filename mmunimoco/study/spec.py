"""Read a study file: variants, seeds, evaluations, published numbers."""

import difflib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .configs import resolve
from .expectations import check_expectations
from .fields import COMMAND, COUNT, NOT_NEGATIVE, NUMBER, TEXT, check_entry
from .protocols import check_evaluation, metric_of

_FIELDS = {
    'base': str,
    'variants': dict,
    'grid': dict,
    'seeds': list,
    'label_seed': bool,
    'gpus': int,
    'evaluations': dict,
    'published': list,
    'expectations': list,
    'prepare': list,
    'title': str,
    'description': str,
}
_NEEDED = ('name', 'evaluation', 'value', 'source')
_PUBLISHED = dict.fromkeys(('name', 'evaluation', 'source', 'metric'), TEXT)
_PUBLISHED |= dict(value=NUMBER, std=NOT_NEGATIVE, n=COUNT)
_PREPARED = dict(command=COMMAND, creates=TEXT)
_MAX_NAME = 200
# Keys of a variant that are no overrides.
_OF_VARIANT = ('base', 'grid', 'checkpoint', 'series')


@dataclass(frozen=True)
class Variant:
    """A pre-training to compare with others.

    Attributes:
        name: Unique name; that of a grid point ends with its values.
        group: Name in the study file, without the values of the grid.
        base: Config file.
        overrides: Dotted field -> value, those of the grid included.
        grid: The overrides that come from the grid.
        checkpoint: Weights to evaluate instead of a pre-training: a path, a
            URL or 'none' (random weights). None to pre-train.
        series: Variants of a series are joined in the plot over the share of
            labels.
    """

    name: str
    group: str
    base: str
    overrides: dict[str, Any]
    grid: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    series: str = ''


@dataclass(frozen=True)
class Study:
    """Content of a study file.

    Attributes:
        path: The file.
        title: Heading of the report.
        variants: All variants, grid points multiplied out.
        seeds: Each variant is run once per seed.
        label_seed: Whether the seed also chooses the labeled images.
        gpus: Processes of a run, one per GPU.
        evaluations: Name -> protocol.
        published: Numbers of others, each with ``source``.
        expectations: What is expected of the scores.
        prepare: Commands to run before the first run, each with what it
            ``creates``.
    """

    path: Path
    title: str
    description: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    label_seed: bool
    gpus: int
    evaluations: dict[str, dict]
    published: tuple[dict, ...]
    expectations: tuple[dict, ...]
    prepare: tuple[dict, ...]


def read_study(path: str | Path) -> Study:
    """Read and check a study file.

    Args:
        path (str | Path): A config file of mmengine.

    Raises:
        FileNotFoundError: If the file, or a config that it names, is missing.
        TypeError: If a field has another type than it should.
        ValueError: If a field is missing, misspelt, empty or inconsistent.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise FileNotFoundError(f'the study file {path} does not exist')
    fields = _read_fields(path)
    _check_fields(path, fields)
    variants = tuple(_variants(path, fields))
    _check_names(path, variants)
    evaluations = {
        name: check_evaluation(path, name, settings)
        for name, settings in (fields.get('evaluations') or {}).items()
    }
    names = {variant.name for variant in variants}
    groups = {variant.group for variant in variants}
    for name, settings in evaluations.items():
        unknown = set(settings.get('variants', ())) - groups - names
        if unknown:
            raise ValueError(
                f'{path}: evaluations.{name}.variants names '
                f'{", ".join(sorted(unknown))}; the variants are '
                f'{", ".join(sorted(groups | names))}'
            )
    return Study(
        path=path,
        title=fields.get('title', path.stem),
        description=fields.get('description', ''),
        variants=variants,
        seeds=_seeds(path, fields.get('seeds', [0])),
        label_seed=fields.get('label_seed', True),
        gpus=fields.get('gpus', 1),
        evaluations=evaluations,
        published=tuple(_published(path, fields, evaluations)),
        expectations=tuple(
            check_expectations(
                *(path, fields.get('expectations') or ()),
                *([variant.name for variant in variants], evaluations),
            )
        ),
        prepare=tuple(_prepare(path, fields)),
    )


def _read_fields(path: Path) -> dict:
    """Run the file; its faults are those of a user's Python."""
    try:
        return Config.fromfile(str(path)).to_dict()
    except (SyntaxError, NameError, AttributeError, LookupError) as error:
        raise ValueError(
            f'{path} cannot be read: {type(error).__name__}: {error}'
        ) from error


def _check_fields(path: Path, fields: Mapping) -> None:
    for name, value in fields.items():
        kind = _FIELDS.get(name)
        # Other names are helpers of the file, unless they look misspelt.
        close = difflib.get_close_matches(name, _FIELDS, 1, 0.75)
        if kind is None and close:
            raise ValueError(
                f'{path}: nothing reads {name!r}. Did you mean {close[0]!r}?'
            )
        accepted = (list, tuple) if kind is list else kind
        if kind is not None and not isinstance(value, accepted):
            raise TypeError(
                f'{path}: {name} must be a {kind.__name__}, got {value!r}'
            )
    if fields.get('gpus', 1) < 1:
        raise ValueError(f'{path}: gpus must be 1 or more')


def _seeds(path: Path, seeds: list) -> tuple[int, ...]:
    valid = all(type(seed) is int and seed >= 0 for seed in seeds)
    if not seeds or not valid or len(set(seeds)) < len(seeds):
        raise ValueError(
            f'{path}: seeds must be different integers from 0 on, such as '
            f'[0, 1, 2], got {list(seeds)}'
        )
    return tuple(seeds)


def _variants(path: Path, fields: Mapping) -> Iterator[Variant]:
    for group, settings in (fields.get('variants') or {'base': {}}).items():
        if not isinstance(group, str):
            raise TypeError(
                f'{path}: the names of variants must be texts, got {group!r}'
            )
        if not isinstance(settings, Mapping):
            raise TypeError(
                f'{path}: variants.{group} must be a dict of dotted fields, '
                f'got {settings!r}'
            )
        base = settings.get('base', fields.get('base'))
        if base is None:
            raise ValueError(
                f'{path}: base is missing, the pre-training config that '
                f'variants.{group} changes'
            )
        checkpoint = settings.get('checkpoint')
        own = {k: v for k, v in settings.items() if k not in _OF_VARIANT}
        grid = settings.get('grid', fields.get('grid') or {})
        if checkpoint is not None:  # not trained
            grid, checkpoint = {}, resolve(path, checkpoint)
        for point in _points(path, grid):
            values = ', '.join(
                f'{short_field(k, grid)}={point[k]}' for k in point
            )
            yield Variant(
                name=f'{group}, {values}' if point else group,
                group=group,
                base=resolve(path, base),
                overrides=own | point,
                grid=point,
                checkpoint=checkpoint,
                series=settings.get('series', group),
            )


def _points(path: Path, grid: Mapping) -> Iterator[dict]:
    for name, values in grid.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise ValueError(
                f'{path}: grid[{name!r}] must be a list of values, got '
                f'{values!r}'
            )
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def short_field(key: str, grid: Mapping) -> str:
    """Last part of a field of a grid; the whole if that is ambiguous."""
    last = key.rpartition('.')[2]
    same = [other for other in grid if other.rpartition('.')[2] == last]
    return last if len(same) == 1 else key


def _check_names(path: Path, variants: tuple[Variant, ...]) -> None:
    slugs: dict[str, str] = {}
    for variant in variants:
        if len(slug(variant.name).encode()) > _MAX_NAME:
            raise ValueError(
                f'{path}: the name of a variant is a folder, so it may have '
                f'up to {_MAX_NAME} letters; shorten {variant.name!r}'
            )
        other = slugs.setdefault(slug(variant.name), variant.name)
        if other != variant.name:
            raise ValueError(
                f'{path}: the variants {other!r} and {variant.name!r} would '
                'share a folder; name them more differently'
            )


def slug(name: str) -> str:
    """A name as a part of paths."""
    kept = (c if c.isalnum() or c in '.-=_' else '-' for c in name)
    text = ''.join(kept).strip('.-')
    while '--' in text:
        text = text.replace('--', '-')
    return text


def _published(
    path: Path, fields: Mapping, evaluations: Mapping
) -> Iterator[dict]:
    for index, entry in enumerate(fields.get('published') or ()):
        place = f'{path}: published[{index}]'
        check_entry(place, entry, _PUBLISHED, needed=_NEEDED)
        yield dict(entry, metric=metric_of(place, entry, evaluations))


def _prepare(path: Path, fields: Mapping) -> Iterator[dict]:
    for index, entry in enumerate(fields.get('prepare') or ()):
        place = f'{path}: prepare[{index}]'
        check_entry(place, entry, _PREPARED, needed=tuple(_PREPARED))
        command, creates = list(entry['command']), entry['creates']
        if '{seed}' in ''.join(command) and '{seed}' not in creates:
            raise ValueError(
                f'{place}.command is run for each {{seed}}, so creates must '
                'name it too'
            )
        yield dict(command=command, creates=creates)
