"""Loss and kNN over the epochs, from mmengine's own logs."""

import json
from pathlib import Path


def read_curves(work_dir: Path) -> dict[str, list[list[float]]]:
    """Read what the runs in a folder logged.

    An interrupted training leaves a log for each time it was started. For an
    epoch that several of them have, the last one counts: it is the one that
    was brought to its end.

    Args:
        work_dir (Path): Folder of a pre-training, with mmengine's
            ``<time>/vis_data/scalars.json``, one or several.

    Returns:
        dict: ``loss``, pairs of epoch and mean of the logged training losses
        of that epoch; ``knn_top1``, pairs of epoch and percent. Both are
        sorted by epoch.
    """
    losses, scores = {}, {}
    for log in sorted(work_dir.glob('*/vis_data/scalars.json')):
        seen = {}
        for record in _read_records(log):
            if 'knn/top1' in record:
                scores[int(record['step'])] = record['knn/top1']
            elif 'loss' in record and 'epoch' in record:
                seen.setdefault(int(record['epoch']), []).append(
                    record['loss']
                )
        losses.update(seen)
    return dict(
        loss=[
            [e, round(sum(v) / len(v), 4)] for e, v in sorted(losses.items())
        ],
        knn_top1=[[e, round(v, 2)] for e, v in sorted(scores.items())],
    )


def _read_records(log: Path) -> list[dict]:
    records = []
    for line in log.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            # The line that was being written when the run was cut off.
            continue
    return records
