"""The stages that transfer each backbone to scenes of several objects."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from mmunimoco.utils.progress import Reporter

from .embedding import save_arrays
from .hooks import ProgressHook
from .predictions import detected_objects, segmented_classes
from .running import evaluate, latest_checkpoint, train
from .scenes_files import write_scenes
from .settings import PRETRAIN_CONFIGS, DemoSettings
from .stages import (
    Stage,
    backbone_file,
    backbone_title,
    label_name,
    stage_store,
)
from .store import StageStore, fingerprint
from .transfer_configs import (
    detection_config,
    scene_counts,
    scenes_dir,
    segmentation_config,
)

SCENES = 'scenes'
# Raise it when scenes are composed in another way.
SCENES_VERSION = 1
# Guessed seconds: of composing a scene and of testing on one.
COMPOSE_SCENE, TEST_SCENE = 0.03, 0.1
INITS = (None, *PRETRAIN_CONFIGS)
PREDICTIONS = 'predictions.npz'


@dataclass(frozen=True)
class Task:
    """Something to transfer to.

    Args:
        name (str): Ends the names of its stages.
        title (str): What the user reads.
        config (Callable): From settings and checkpoint to the config.
        metrics (dict[str, tuple[str, float]]): What the summary calls it ->
            what the metric of the config calls it, and the factor that makes
            it percent.
        predict (Callable): From runner to arrays for the picture.
        step_seconds (float): Guess for a training step.
    """

    name: str
    title: str
    config: Callable[[DemoSettings, Path], Config]
    metrics: dict[str, tuple[str, float]]
    predict: Callable[[Runner], dict]
    step_seconds: float


DETECTION = Task(
    'detection',
    'Detection',
    detection_config,
    dict(bbox_mAP=('coco/bbox_mAP', 100.0), segm_mAP=('coco/segm_mAP', 100.0)),
    detected_objects,
    0.4,
)
SEGMENTATION = Task(
    'segmentation',
    'Segmentation',
    segmentation_config,
    dict(mIoU=('mIoU', 1.0)),
    segmented_classes,
    0.25,
)
TASKS = (DETECTION, SEGMENTATION)


def transfer_stages(
    settings: DemoSettings, training: list[Stage]
) -> list[Stage]:
    """Compose scenes, then each backbone through each task.

    Args:
        settings (DemoSettings): The run.
        training (list[Stage]): From :func:`training_stages`.

    Returns:
        list[Stage]: In the order in which they run; empty if the settings
        leave transfer out.
    """
    if not settings.transfer:
        return []
    stages = {stage.name: stage for stage in training}
    scenes = _scenes_stage(settings)
    return [scenes] + [
        _task_stage(settings, task, ratio, stages[label_name(ratio)], scenes)
        for task in TASKS
        for ratio in INITS
    ]


def task_stage_name(task: Task, label_ratio: float | None) -> str:
    """Name of the stage of a task: 'labels-10-detection'."""
    return f'{label_name(label_ratio)}-{task.name}'


def predictions_file(
    settings: DemoSettings, task: Task, label_ratio: float | None
) -> Path:
    """Arrays that a task leaves for the picture."""
    name = task_stage_name(task, label_ratio)
    return settings.stages_dir / name / PREDICTIONS


def _scenes_stage(settings: DemoSettings) -> Stage:
    counts = scene_counts(settings)
    digest = fingerprint(SCENES, SCENES_VERSION, settings.seed, counts)
    store = StageStore(settings.stages_dir / SCENES, digest)
    target = scenes_dir(settings)

    def run(reporter: Reporter) -> dict:
        write_scenes(
            target,
            counts,
            seed=settings.seed,
            progress=lambda done: reporter.update(done, 'composing'),
        )
        return dict(counts)

    weight = COMPOSE_SCENE * sum(counts.values())
    outputs = tuple(
        target / 'annotations' / f'instances_{name}.json' for name in counts
    )
    return Stage(SCENES, 'Compose scenes', weight, store, run, outputs)


def _task_stage(
    settings: DemoSettings,
    task: Task,
    label_ratio: float | None,
    *upstream: Stage,
) -> Stage:
    cfg = task.config(settings, backbone_file(settings, label_ratio))
    name = task_stage_name(task, label_ratio)
    digests = [stage.store.fingerprint for stage in upstream]
    store = stage_store(settings, name, cfg, *digests)
    target = predictions_file(settings, task, label_ratio)

    def run(reporter: Reporter) -> dict:
        hook = ProgressHook(reporter)
        train(deepcopy(cfg), store.folder, hook)
        last = latest_checkpoint(store.folder)
        found, runner = evaluate(
            deepcopy(cfg), store.folder / 'test', hook, last
        )
        save_arrays(target, task.predict(runner))
        # Without a single detection (a few steps of --quick) there is no AP
        # in what the metric gives: nothing found of what is there is 0.
        return {
            key: round(factor * float(found.get(name, 0.0)), 2)
            for key, (name, factor) in task.metrics.items()
        }

    counts = scene_counts(settings)
    steps = cfg.train_cfg.max_epochs * counts['train']
    weight = (
        task.step_seconds * steps / cfg.train_dataloader.batch_size
        + TEST_SCENE * counts['val']
    )
    title = f'{task.title} from {backbone_title(label_ratio)}'
    after = tuple(stage.name for stage in upstream)
    return Stage(name, title, weight, store, run, (target,), after)
