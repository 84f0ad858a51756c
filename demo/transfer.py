"""The stages that fine-tune each backbone on composed scenes."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner

from mmunimoco.utils.atomic import write_atomic

from .make_scenes import write_scenes
from .settings import (
    BACKBONES,
    DemoSettings,
    backbone_file,
    backbone_name,
    backbone_title,
    detection_config,
    segmentation_config,
)
from .stages import Stage, config_key
from .training import Report, evaluate, latest_checkpoint, train

# Raise it when scenes are composed in another way.
SCENES_VERSION = 1
# Estimated seconds: composing a scene, and testing on one.
COMPOSE_SCENE, TEST_SCENE = 0.03, 0.1
# The first validation scenes, which the report shows, and the score from
# which on a detection is drawn.
SHOWN_SCENES, SHOWN_SCORE = 3, 0.5


def transfer_stages(
    settings: DemoSettings, training: list[Stage]
) -> list[Stage]:
    """Compose scenes, then fine-tune each backbone on each task."""
    if not settings.transfer:
        return []
    backbones = {stage.name: stage for stage in training}
    scenes = _scenes_stage(settings)
    return [scenes] + [
        _task_stage(
            settings, task, ratio, backbones[backbone_name(ratio)], scenes
        )
        for task in TASKS
        for ratio in BACKBONES
    ]


def task_stage_name(task: str, label_ratio: float | None) -> str:
    """Name of a stage, for example 'labels-10-detection'."""
    return f'{backbone_name(label_ratio)}-{task}'


def predictions_file(
    settings: DemoSettings, task: str, label_ratio: float | None
) -> Path:
    """Arrays that a task leaves for the picture of predictions."""
    name = task_stage_name(task, label_ratio)
    return settings.stages_dir / name / 'predictions.npz'


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write an ``.npz`` file, complete or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def detected_objects(runner: Runner) -> dict[str, np.ndarray]:
    """Confident detections of a tested detector in the first scenes.

    Returns:
        dict[str, np.ndarray]: Of the N detections ``scene`` (N,) int64 (its
        number), ``masks`` (N, H, W) bool, ``boxes`` (N, 4) float32 (x1, y1,
        x2, y2) and ``labels`` (N,) int64.
    """
    parts = []
    for scene, sample in enumerate(_predict(runner)):
        found = sample.pred_instances.cpu()
        found = found[found.scores >= SHOWN_SCORE]
        parts.append(
            dict(
                scene=np.full(len(found), scene, np.int64),
                # Without detections mmdet gives masks of size 0.
                masks=found.masks.numpy().reshape(-1, *sample.ori_shape),
                boxes=found.bboxes.numpy(),
                labels=found.labels.numpy(),
            )
        )
    return {
        key: np.concatenate([part[key] for part in parts]) for key in parts[0]
    }


def segmented_classes(runner: Runner) -> dict[str, np.ndarray]:
    """``classes`` (scenes, H, W) uint8 of a tested segmenter."""
    maps = [
        sample.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8)
        for sample in _predict(runner)
    ]
    return dict(classes=np.stack(maps))


@dataclass(frozen=True)
class Task:
    """A task to fine-tune on.

    Attributes:
        config: Returns the config for settings and a checkpoint.
        metrics: Key in the summary -> key of the config's metric, and the
            factor that converts it to percent.
        predict: Returns arrays for the picture of predictions.
        step_seconds: Estimated duration of a training step.
    """

    config: Callable[[DemoSettings, Path], Config]
    metrics: dict[str, tuple[str, float]]
    predict: Callable[[Runner], dict[str, np.ndarray]]
    step_seconds: float


TASKS = {
    'detection': Task(
        detection_config,
        dict(
            bbox_mAP=('coco/bbox_mAP', 100.0),
            segm_mAP=('coco/segm_mAP', 100.0),
        ),
        detected_objects,
        0.4,
    ),
    'segmentation': Task(
        segmentation_config,
        dict(mIoU=('mIoU', 1.0)),
        segmented_classes,
        0.25,
    ),
}


def _scenes_stage(settings: DemoSettings) -> Stage:
    target = settings.scenes_dir
    counts = settings.scene_counts

    def run(report: Report) -> dict:
        write_scenes(
            target,
            counts,
            seed=settings.seed,
            progress=lambda done: report(done, 'composing', False),
        )
        return dict(counts)

    annotations = target / 'annotations'
    return Stage(
        target.parent,
        'Compose scenes',
        COMPOSE_SCENE * sum(counts.values()),
        run,
        [SCENES_VERSION, settings.seed, counts],
        outputs=tuple(annotations / f'instances_{n}.json' for n in counts),
    )


def _task_stage(
    settings: DemoSettings,
    name: str,
    label_ratio: float | None,
    *needs: Stage,
) -> Stage:
    task = TASKS[name]
    cfg = task.config(settings, backbone_file(settings, label_ratio))
    predictions = predictions_file(settings, name, label_ratio)
    folder = predictions.parent

    def run(report: Report) -> dict:
        train(cfg, folder, report)
        found, runner = evaluate(
            cfg, folder / 'test', latest_checkpoint(folder)
        )
        save_arrays(predictions, **task.predict(runner))
        # After a few steps (--quick) there may be no detection, and then the
        # metric gives no AP.
        return {
            key: round(factor * float(found.get(metric, 0.0)), 2)
            for key, (metric, factor) in task.metrics.items()
        }

    counts = settings.scene_counts
    steps = cfg.train_cfg.max_epochs * counts['train']
    steps /= cfg.train_dataloader.batch_size
    return Stage(
        folder,
        f'{name.capitalize()}: {backbone_title(label_ratio)}',
        task.step_seconds * steps + TEST_SCENE * counts['val'],
        run,
        config_key(settings, cfg),
        needs,
        (predictions,),
    )


@torch.no_grad()
def _predict(runner: Runner) -> list:
    dataset = runner.test_dataloader.dataset
    count = min(SHOWN_SCENES, len(dataset))
    runner.model.eval()
    batch = pseudo_collate([dataset[index] for index in range(count)])
    return runner.model.test_step(batch)
