"""The stages of the demo: what each does with its folder."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner, save_checkpoint

from mmunimoco.utils.atomic import write_whole
from mmunimoco.utils.progress import Reporter

from .configs import linear_config, pretrain_config
from .hooks import ClockHook, ProgressHook
from .running import evaluate, latest_checkpoint, train
from .settings import PRETRAIN_CONFIGS, DemoSettings
from .store import StageStore, fingerprint

RANDOM_INIT = 'random-init'
# Guessed seconds on two cores: of an epoch of 6 000 images, and of a kNN.
PRETRAIN_EPOCH, LINEAR_EPOCH, KNN = 7.0, 1.5, 5.0


@dataclass(frozen=True)
class Stage:
    """A piece of work that is done once.

    Args:
        name (str): Name of its folder.
        title (str): What the user reads.
        weight (float): Guessed seconds.
        store (StageStore): Its folder and record.
        run (Callable): Called with a reporter; returns the result, of
            values that JSON holds.
        outputs (tuple[Path, ...]): Files without which it is not finished.
            Defaults to none.
        after (tuple[str, ...]): Names of the stages that have to be finished
            before. Defaults to none.
    """

    name: str
    title: str
    weight: float
    store: StageStore
    run: Callable[[Reporter], dict]
    outputs: tuple[Path, ...] = ()
    after: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.store.state == 'finished' and all(
            path.is_file() for path in self.outputs
        )


def label_name(label_ratio: float | None) -> str:
    """Name of an initialisation: 'labels-10', or 'random-init' for None."""
    if label_ratio is None:
        return RANDOM_INIT
    return f'labels-{round(100 * label_ratio)}'


def backbone_title(label_ratio: float | None) -> str:
    """What the user reads: '10 % of the labels', or 'random weights'."""
    if label_ratio is None:
        return 'random weights'
    return f'{100 * label_ratio:.0f} % of the labels'


def backbone_file(settings: DemoSettings, label_ratio: float | None) -> Path:
    """Checkpoint that a pre-training (None: random weights) leaves."""
    return settings.stages_dir / label_name(label_ratio) / 'final.pth'


def training_stages(settings: DemoSettings) -> list[Stage]:
    """Random weights and every pre-training, each with its linear probe.

    Args:
        settings (DemoSettings): The run.

    Returns:
        list[Stage]: In the order in which they run.
    """
    pretrain = [_random_init_stage(settings)]
    pretrain += [_pretrain_stage(settings, r) for r in PRETRAIN_CONFIGS]
    ratios = [None, *PRETRAIN_CONFIGS]
    linear = [
        _linear_stage(settings, ratio, stage)
        for ratio, stage in zip(ratios, pretrain, strict=True)
    ]
    return pretrain + linear


def _random_init_stage(settings: DemoSettings) -> Stage:
    cfg = pretrain_config(settings, 1.0)
    store = stage_store(settings, RANDOM_INIT, cfg)
    target = backbone_file(settings, None)

    def run(reporter: Reporter) -> dict:
        hook = ProgressHook(reporter)
        metrics, runner = evaluate(
            deepcopy(cfg), store.folder / 'knn', hook, None
        )
        _save_weights(runner, target)
        return dict(knn_top1=round(metrics['knn/top1'], 2))

    return Stage(
        RANDOM_INIT, 'Random weights: kNN', KNN, store, run, (target,)
    )


def _pretrain_stage(settings: DemoSettings, label_ratio: float) -> Stage:
    cfg = pretrain_config(settings, label_ratio)
    name = label_name(label_ratio)
    store = stage_store(settings, name, cfg)
    target = backbone_file(settings, label_ratio)
    epochs = cfg.train_cfg.max_epochs

    def run(reporter: Reporter) -> dict:
        share = 1 - KNN / (KNN + PRETRAIN_EPOCH * epochs)
        hook = ProgressHook(reporter, 0.0, share)
        runner = train(deepcopy(cfg), store.folder, hook)
        seconds = ClockHook.read(runner)
        last = latest_checkpoint(store.folder)
        hook = ProgressHook(reporter, share, 1.0)
        metrics, runner = evaluate(
            deepcopy(cfg), store.folder / 'knn', hook, last
        )
        _save_weights(runner, target)
        return dict(
            label_ratio=label_ratio,
            knn_top1=round(metrics['knn/top1'], 2),
            epochs=epochs,
            seconds=round(seconds, 1),
        )

    title = f'Pre-train with {backbone_title(label_ratio)}'
    weight = PRETRAIN_EPOCH * epochs * _share_of_images(cfg) + KNN
    return Stage(name, title, weight, store, run, (target,))


def _linear_stage(
    settings: DemoSettings, label_ratio: float | None, pretrain: Stage
) -> Stage:
    cfg = linear_config(settings, backbone_file(settings, label_ratio))
    name = f'{pretrain.name}-linear'
    store = stage_store(settings, name, cfg, pretrain.store.fingerprint)
    epochs = cfg.train_cfg.max_epochs

    def run(reporter: Reporter) -> dict:
        hook = ProgressHook(reporter)
        train(deepcopy(cfg), store.folder, hook)
        last = latest_checkpoint(store.folder)
        metrics, _ = evaluate(deepcopy(cfg), store.folder / 'test', hook, last)
        return dict(linear_top1=round(metrics['accuracy/top1'], 2))

    weight = LINEAR_EPOCH * epochs * _share_of_images(cfg) + KNN
    title = f'Linear probe of {backbone_title(label_ratio)}'
    return Stage(name, title, weight, store, run, after=(pretrain.name,))


def _save_weights(runner: Runner, target: Path) -> None:
    """Write what evaluation and transfer need: weights, no optimizer."""
    # The config tells transfer how images were normalised.
    meta = dict(cfg=runner.cfg.pretty_text)
    state = runner.model.state_dict()
    content = dict(meta=meta, state_dict=state)
    write_whole(target, lambda part: save_checkpoint(content, str(part)))


def _share_of_images(cfg: Config) -> float:
    """Part of the 6 000 training images that a config uses."""
    dataset = cfg.train_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    indices = dataset.get('indices')
    return 1.0 if indices is None else indices / 6000


def stage_store(
    settings: DemoSettings, name: str, cfg: Config, *upstream: str
) -> StageStore:
    """Folder and record of a stage that runs from a config.

    Args:
        settings (DemoSettings): The run.
        name (str): Of the stage.
        cfg (Config): What it runs.
        *upstream (str): Fingerprints of the stages that it builds upon.

    Returns:
        StageStore: Of ``settings.stages_dir / name``.
    """
    digest = fingerprint(name, _portable(cfg, settings), *upstream)
    return StageStore(settings.stages_dir / name, digest)


def _portable(cfg: Config, settings: DemoSettings) -> str:
    """Text of a config that stays the same when the folder is moved."""
    text = json.dumps(cfg.to_dict(), sort_keys=True, default=str)
    return text.replace(str(settings.work_dir), '')
