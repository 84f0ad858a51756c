"""What a detector or a segmenter says about the first scenes."""

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner

# Scenes in the picture, the first of validation: the same for each backbone.
SHOWN_SCENES = 3
# Detections below it are not drawn.
SHOWN_SCORE = 0.5


def detected_objects(runner: Runner) -> dict[str, np.ndarray]:
    """Detections in the first scenes.

    Args:
        runner (Runner): After testing a detector of mmdet.

    Returns:
        dict[str, np.ndarray]: Of the N detections shown, ``scene`` (N,) int64
        (its number), ``masks`` (N, H, W) bool, ``boxes`` (N, 4) float32 (x1,
        y1, x2, y2), ``labels`` (N,) int64, ``scores`` (N,) float32.
    """
    parts = []
    for scene, sample in enumerate(_predict(runner)):
        found = sample.pred_instances.cpu()
        found = found[found.scores >= SHOWN_SCORE]
        parts.append(
            dict(
                scene=np.full(len(found), scene, np.int64),
                # Without any, mmdet gives masks of no size.
                masks=found.masks.numpy().reshape(-1, *sample.ori_shape),
                boxes=found.bboxes.numpy(),
                labels=found.labels.numpy(),
                scores=found.scores.numpy(),
            )
        )
    return {
        key: np.concatenate([part[key] for part in parts]) for key in parts[0]
    }


def segmented_classes(runner: Runner) -> dict[str, np.ndarray]:
    """Classes of the pixels of the first scenes.

    Args:
        runner (Runner): After testing a segmenter of mmseg.

    Returns:
        dict[str, np.ndarray]: ``classes`` (scenes, H, W) uint8.
    """
    maps = [
        sample.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8)
        for sample in _predict(runner)
    ]
    return dict(classes=np.stack(maps))


@torch.no_grad()
def _predict(runner: Runner) -> list:
    dataset = runner.test_dataloader.dataset
    count = min(SHOWN_SCENES, len(dataset))
    runner.model.eval()
    batch = pseudo_collate([dataset[index] for index in range(count)])
    return runner.model.test_step(batch)
