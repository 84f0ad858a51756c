"""From a study to jobs: resolved configs, keys, folders, cost."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import find_latest_checkpoint

from mmunimoco.engine.checks.config_fields import check_arguments
from mmunimoco.engine.pretrained_init import NO_CHECKPOINT

from .configs import (
    apply_overrides,
    count_steps,
    load_config,
    named_files,
    partial_labels,
)
from .prepare import fill, is_prepared
from .protocols import (
    PACKAGE,
    PRETRAIN,
    PROTOCOLS,
    evaluation_config,
)
from .records import Results
from .spec import Study, Variant, slug

# Of an evaluation: how numbers are shown, which does not change them.
SHOWN = ('metrics', 'variants', 'lower_is_better', 'scale')


@dataclass(eq=False)
class Job:
    """A pre-training or an evaluation: one work folder, one record.

    Attributes:
        variant: What is trained.
        seed: Its seed.
        evaluation: Name in the study file, or 'pretrain'.
        settings: The protocol.
        cfg: Resolved config, without the checkpoint of ``needs``.
        folder: Work folder.
        config_hash: Hash of config, protocol and those of ``needs``.
        code: Hash of the package's code.
        needs: The pre-training whose weights are evaluated, if there is one.
    """

    variant: Variant
    seed: int
    evaluation: str
    settings: dict
    cfg: Config
    folder: Path
    config_hash: str
    code: str
    needs: 'Job | None' = None
    _steps: list = field(default_factory=list, repr=False)

    @property
    def key(self) -> str:
        """Identifies the result in the records."""
        return f'{self.config_hash}-{self.code}'

    @property
    def title(self) -> str:
        """For people."""
        return f'{self.variant.name}, seed {self.seed}: {self.evaluation}'

    @property
    def config_file(self) -> Path:
        """Where its config is written: beside the folder.

        In the folder mmengine writes what it has made of the config, under
        the same name.
        """
        return self.folder.parent / f'{self.folder.name}.py'

    @property
    def trains(self) -> bool:
        """Whether it trains."""
        return (
            self.evaluation == PRETRAIN
            or PROTOCOLS[self.settings['type']].trains
        )

    def checkpoint(self) -> str:
        """The weights to evaluate."""
        if self.needs is None:
            return self.variant.checkpoint
        return str(last_checkpoint(self.needs.folder))

    def steps(self, gpus: int) -> int | None:
        """Optimizer steps; 0 without training, None if unknown."""
        if not self._steps:
            known = count_steps(self.cfg, gpus) if self.trains else 0
            self._steps.append(known)
        return self._steps[0]


def plan_jobs(
    study: Study, work_dir: Path, results: Results, any_code: bool = False
) -> list[Job]:
    """All jobs of a study; each stands behind what it needs.

    Args:
        study (Study): The study.
        work_dir (Path): Its work folder.
        results (Results): Records so far.
        any_code (bool): Whether runs of another version of the code count,
            finished or not. Defaults to False.

    Raises:
        ValueError: If a config lacks what an override or a protocol needs.
        FileNotFoundError: If a list of labels, or weights to start from, do
            not exist and nothing prepares them.
    """
    _content.cache_clear()  # a file may have been edited since
    jobs: list[Job] = []
    for variant in study.variants:
        for seed in study.seeds:
            jobs += _jobs_of(study, variant, seed, work_dir)
    if any_code:
        for job in jobs:
            _adopt_code(job, results, work_dir)
    _check_unique(study, jobs)
    for job in jobs:
        # A variant that was renamed since has its files under the old name.
        if results.finished(job.key):
            job.folder = work_dir / results.latest[job.key]['folder']
    return jobs


def _jobs_of(
    study: Study, variant: Variant, seed: int, work_dir: Path
) -> Iterator[Job]:
    cfg = run_config(study, variant, seed, work_dir)
    code = code_version()
    read = [*named_files(cfg, True)]
    if variant.checkpoint is None:
        _check_files(study, work_dir, f'variants.{variant.group}', read)
    files = _contents([*read, variant.checkpoint])
    more = [dict(gpus=study.gpus)] if study.gpus > 1 else []
    more += [files] if files else []
    digest = _digest(study, work_dir, cfg, variant.checkpoint, *more)
    parent = work_dir / 'runs' / slug(variant.name)
    parent /= f'seed-{seed}_{digest[:8]}-{code[:6]}'
    train = None
    if variant.checkpoint is None:
        train = Job(
            *(variant, seed, PRETRAIN, dict(type=PRETRAIN), cfg),
            *(parent / PRETRAIN, digest, code),
        )
        yield train
    for name, settings in study.evaluations.items():
        wanted = settings.get('variants', (variant.group,))
        if variant.group not in wanted and variant.name not in wanted:
            continue
        if settings['type'] == 'cached_linear' and (
            variant.checkpoint == NO_CHECKPOINT
        ):
            raise ValueError(
                f'{study.path}: evaluations.{name} (cached_linear) draws no '
                f'random weights by seed, which variants.{variant.group} '
                'asks for: leave that out of variants= of the evaluation'
            )
        filled = fill(settings, work_dir, seed)
        own = evaluation_config(
            *(filled, cfg, variant.overrides, seed, study.label_seed)
        )
        _check_config(study, f'evaluations.{name}', own)
        protocol = {k: v for k, v in settings.items() if k not in SHOWN}
        read = {*_own_files(own, settings)}
        _check_files(study, work_dir, f'evaluations.{name}', read)
        # What the pre-training reads too is in its digest.
        new = _contents(read - files.keys())
        more = [protocol, digest, *([new] if new else [])]
        own_digest = _digest(study, work_dir, own, *more)
        yield Job(
            *(variant, seed, name, settings, own),
            *(parent / f'{slug(name)}_{own_digest[:8]}', own_digest, code),
            train,
        )


def run_config(
    study: Study, variant: Variant, seed: int, work_dir: Path
) -> Config:
    """Resolved config of a pre-training: overrides, then the seed.

    Raises:
        ValueError: If the config has no place for an override.
    """
    cfg = load_config(variant.base)
    try:
        apply_overrides(cfg, fill(variant.overrides, work_dir, seed))
    except ValueError as error:
        raise ValueError(
            f'{study.path}: variants.{variant.group}: {error}'
        ) from None
    cfg.merge_from_dict({'randomness.seed': seed})
    if study.label_seed:
        loader = cfg.get('train_dataloader') or {}
        for node in partial_labels(loader.get('dataset')):
            node['seed'] = seed
    _check_config(study, f'variants.{variant.group}', cfg)
    return cfg


@cache
def code_version() -> str:
    """Hash of the package's code but this folder, which changes no result."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob('*.py')):
        name = path.relative_to(PACKAGE)
        if name.parts[0] not in ('study', '.mim'):
            digest.update(f'{name}\0'.encode() + path.read_bytes() + b'\0')
    return digest.hexdigest()[:12]


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint of a training, also in a moved folder."""
    if not (folder / 'last_checkpoint').is_file():
        return None
    path = Path(find_latest_checkpoint(str(folder)))
    here = folder / path.name
    found = here if here.is_file() else path
    return found if found.is_file() else None


def _adopt_code(job: Job, results: Results, work_dir: Path) -> None:
    """Go on with a run of other code, the last one that there is."""
    own = [r for r in results.records if r['config_hash'] == job.config_hash]
    # A result counts, also if a later version of the code has failed.
    done = [record for record in own if record['status'] == 'done']
    for record in (done or own)[-1:]:
        job.folder = work_dir / record['folder']
        if done:  # what failed is tried again with the code of today
            job.code = record['code']
    if not results.finished(job.key):
        start = job.folder.parent.name.rpartition('-')[0]
        found = [
            folder / job.folder.name
            for folder in job.folder.parent.parent.glob(f'{start}-*')
            if (folder / job.folder.name).is_dir()
        ]
        if found:
            job.folder = max(found, key=lambda path: path.stat().st_mtime)


def _check_config(study: Study, place: str, cfg: Config) -> None:
    """Refuse arguments that nothing takes, before the first run starts."""
    if cfg.get('default_scope', 'mmpretrain') != 'mmpretrain':
        return
    init_default_scope('mmpretrain')
    try:
        check_arguments(cfg)
    except ValueError as error:
        raise ValueError(f'{study.path}: {place}: {error}') from None


def _check_files(
    study: Study, work_dir: Path, place: str, paths: Iterable[str]
) -> None:
    """Refuse files that a run would miss, and whose content its key lacks."""
    for name in paths:
        path = Path(name).expanduser()
        elsewhere = name == NO_CHECKPOINT or '://' in name
        if elsewhere or path.is_file() or is_prepared(study, work_dir, path):
            continue
        raise FileNotFoundError(
            f'{study.path}: {place} reads {name}, but {path.absolute()} does '
            'not exist (paths in configs and in overrides are relative to '
            'the current folder, not to the study file)'
        )


def _check_unique(study: Study, jobs: list[Job]) -> None:
    seen: dict[str, Job] = {}
    for job in jobs:
        other = seen.setdefault(job.config_hash, job)
        if other is not job:
            raise ValueError(
                f'{study.path}: {other.title} and {job.title} are the same '
                'run: an override, or the seed, has no effect'
            )


def _own_files(cfg: Config, settings: dict) -> Iterator[str]:
    """Files that an evaluation reads, beside the weights it evaluates."""
    content, trains = cfg.to_dict(), PROTOCOLS[settings['type']].trains
    if trains:
        del content['model']['backbone']['init_cfg']
    return named_files(content, trains)


def _contents(paths: Iterable[str | None]) -> dict[str, str]:
    """Path -> hash of the content, of those that are files here."""
    return {
        path: _content(path)
        for path in filter(None, paths)
        if Path(path).expanduser().is_file()
    }


@cache
def _content(path: str) -> str:
    data = Path(path).expanduser().read_bytes()
    return hashlib.sha256(data).hexdigest()


def _digest(study: Study, work_dir: Path, cfg: Config, *more: Any) -> str:
    """Hash that stays the same when the folder of all files is moved."""
    content = deepcopy(cfg.to_dict())
    text = json.dumps([content, *more], sort_keys=True, default=str)
    # That of the work folder first: it may lie in one of the others.
    for folder in (work_dir, PACKAGE.parent, study.path.parent):
        text = text.replace(f'{folder}/', '')
    return hashlib.sha256(text.encode()).hexdigest()[:12]
