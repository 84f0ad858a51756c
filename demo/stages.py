"""Stages: pieces of work with a folder, a record and a fingerprint.

A stage owns its folder. ``stage.json`` in it holds the fingerprint of what
the result depends on and, once the stage is finished, the result. A crash
leaves a record without a result, and the stage continues from what is in the
folder; a record with another fingerprint makes it start over.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner, save_checkpoint

from mmunimoco.utils.atomic import write_json, write_whole

from .settings import (
    BACKBONES,
    PRETRAIN_CONFIGS,
    ROOT,
    SUPERVISED_CONFIGS,
    DemoSettings,
    backbone_file,
    backbone_title,
    linear_config,
    pretrain_config,
    supervised_config,
    supervised_name,
)
from .training import ClockHook, Report, evaluate, latest_checkpoint, train

# Raise it when results of an older version cannot be used any more.
RECORD_VERSION = 3
# Estimated seconds on two cores: an epoch of 6 000 images, and a kNN test.
PRETRAIN_EPOCH, SUPERVISED_EPOCH, LINEAR_EPOCH, KNN = 7.0, 5.0, 1.5, 5.0


@dataclass(frozen=True, eq=False)
class Stage:
    """A piece of work that is done once.

    Attributes:
        folder: Its folder, which is removed when the stage starts over. The
            last part is the name of the stage.
        title: Readable name.
        seconds: Estimated duration.
        run: Does the work and returns the result, a dict that JSON can hold.
        key: What the result depends on, besides ``needs``.
        needs: Stages that must be finished before.
        outputs: Files without which the stage is not finished.
    """

    folder: Path
    title: str
    seconds: float
    run: Callable[[Report], dict]
    key: object = None
    needs: tuple['Stage', ...] = ()
    outputs: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """Unique name."""
        return self.folder.name

    @cached_property
    def fingerprint(self) -> str:
        """Digest of everything that the result depends on."""
        upstream = [stage.fingerprint for stage in self.needs]
        text = json.dumps(
            [RECORD_VERSION, self.name, self.key, upstream], sort_keys=True
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def state(self) -> str:
        """'absent', 'changed' (other settings), 'started' or 'finished'."""
        record = self._read()
        if record is None:
            return 'absent'
        if record.get('fingerprint') != self.fingerprint:
            return 'changed'
        if 'result' not in record:
            return 'started'
        complete = all(path.is_file() for path in self.outputs)
        # A record of lost outputs is of no use.
        return 'finished' if complete else 'absent'

    @property
    def result(self) -> dict:
        """Result of a finished stage."""
        return self._read()['result']

    def prepare(self) -> None:
        """Prepare the folder: kept if the stage was started, else emptied."""
        if self.state == 'started':
            return
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self._write()

    def finish(self, result: dict) -> None:
        """Record the result."""
        self._write(result=result)

    def _write(self, **record: dict) -> None:
        record = dict(fingerprint=self.fingerprint, **record)
        write_json(self.folder / 'stage.json', record)

    def _read(self) -> dict | None:
        try:
            record = json.loads((self.folder / 'stage.json').read_text())
        except (FileNotFoundError, ValueError):
            return None
        return record if isinstance(record, dict) else None


def training_stages(settings: DemoSettings) -> list[Stage]:
    """Random weights and every pre-training, each with its linear probe.

    Then the baselines.
    """
    backbones = [_random_init_stage(settings)]
    backbones += [_pretrain_stage(settings, r) for r in PRETRAIN_CONFIGS]
    return [
        *backbones,
        *(
            _linear_stage(settings, ratio, stage)
            for ratio, stage in zip(BACKBONES, backbones, strict=True)
        ),
        *(_supervised_stage(settings, r) for r in SUPERVISED_CONFIGS),
    ]


def config_key(settings: DemoSettings, cfg: Config) -> str:
    """Text of a config that does not change when its folders are moved."""
    text = json.dumps(cfg.to_dict(), sort_keys=True, default=str)
    return text.replace(str(settings.work_dir), '').replace(str(ROOT), '')


def _random_init_stage(settings: DemoSettings) -> Stage:
    cfg = pretrain_config(settings, 1.0)
    target = backbone_file(settings, None)

    def run(report: Report) -> dict:
        metrics, runner = evaluate(cfg, target.parent / 'knn', None)
        _save_weights(runner, target)
        return dict(knn_top1=round(metrics['knn/top1'], 2))

    return Stage(
        target.parent,
        'Random weights: kNN',
        KNN,
        run,
        config_key(settings, cfg),
        outputs=(target,),
    )


def _pretrain_stage(settings: DemoSettings, label_ratio: float) -> Stage:
    cfg = pretrain_config(settings, label_ratio)
    target = backbone_file(settings, label_ratio)
    folder = target.parent
    epochs = cfg.train_cfg.max_epochs
    training = PRETRAIN_EPOCH * epochs * _share_of_images(cfg)

    def run(report: Report) -> dict:
        runner = train(cfg, folder, report, training / (training + KNN))
        seconds, steps = ClockHook.read(runner), runner.iter
        metrics, runner = evaluate(
            cfg, folder / 'knn', latest_checkpoint(folder)
        )
        _save_weights(runner, target)
        return dict(
            label_ratio=label_ratio,
            knn_top1=round(metrics['knn/top1'], 2),
            epochs=epochs,
            steps=steps,
            seconds=round(seconds, 1),
        )

    return Stage(
        folder,
        f'Pre-train: {backbone_title(label_ratio)}',
        training + KNN,
        run,
        config_key(settings, cfg),
        outputs=(target,),
    )


def _supervised_stage(settings: DemoSettings, label_ratio: float) -> Stage:
    cfg = supervised_config(settings, label_ratio)
    # Only the backbone counts for kNN, and the images that vote.
    knn = pretrain_config(settings, 1.0)
    folder = settings.stages_dir / supervised_name(label_ratio)
    target = folder / 'final.pth'
    epochs = cfg.train_cfg.max_epochs
    training = SUPERVISED_EPOCH * epochs * _share_of_images(cfg)

    def run(report: Report) -> dict:
        runner = train(cfg, folder, report, training / (training + 2 * KNN))
        seconds, steps = ClockHook.read(runner), runner.iter
        own, runner = evaluate(cfg, folder / 'test', latest_checkpoint(folder))
        _save_weights(runner, target)
        metrics, _ = evaluate(knn, folder / 'knn', target)
        return dict(
            label_ratio=label_ratio,
            knn_top1=round(metrics['knn/top1'], 2),
            linear_top1=round(own['accuracy/top1'], 2),
            epochs=epochs,
            steps=steps,
            seconds=round(seconds, 1),
        )

    return Stage(
        folder,
        f'Cross-entropy: {backbone_title(label_ratio)}',
        training + 2 * KNN,
        run,
        [config_key(settings, cfg), config_key(settings, knn)],
        outputs=(target,),
    )


def _linear_stage(
    settings: DemoSettings, label_ratio: float | None, backbone: Stage
) -> Stage:
    cfg = linear_config(settings, backbone_file(settings, label_ratio))
    folder = settings.stages_dir / f'{backbone.name}-linear'

    def run(report: Report) -> dict:
        train(cfg, folder, report)
        metrics, _ = evaluate(cfg, folder / 'test', latest_checkpoint(folder))
        return dict(linear_top1=round(metrics['accuracy/top1'], 2))

    return Stage(
        folder,
        f'Linear probe: {backbone_title(label_ratio)}',
        LINEAR_EPOCH * cfg.train_cfg.max_epochs * _share_of_images(cfg) + KNN,
        run,
        config_key(settings, cfg),
        needs=(backbone,),
    )


def _save_weights(runner: Runner, target: Path) -> None:
    """Save weights without optimizer, as evaluation and transfer need."""
    content = dict(
        # From the config transfer reads how images were normalised.
        meta=dict(cfg=runner.cfg.pretty_text),
        state_dict=runner.model.state_dict(),
    )
    write_whole(target, lambda part: save_checkpoint(content, str(part)))


def _share_of_images(cfg: Config) -> float:
    """Fraction of the 6 000 training images that a config uses."""
    dataset = cfg.train_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset.get('indices', 6000) / 6000
