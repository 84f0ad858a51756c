"""Train and test with mmengine's Runner, as a user would, but quietly."""

import time
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint

from mmunimoco.engine.launch import build_runner

from .hooks import ClockHook, ProgressHook


def train(cfg: Config, work_dir: Path, progress: ProgressHook) -> Runner:
    """Train from a config, or go on from the last epoch in the folder.

    Args:
        cfg (Config): The config.
        work_dir (Path): Folder of logs and checkpoints.
        progress (ProgressHook): Who is told.

    Returns:
        Runner: After training; ``message_hub`` has the log values.
    """
    checkpoint = latest_checkpoint(work_dir)
    if checkpoint is not None:
        cfg.resume, cfg.load_from = True, str(checkpoint)
    runner = _build(cfg, work_dir)
    for hook in (ClockHook(), progress):
        runner.register_hook(hook)
    with progress.interrupt:
        runner.train()
    return runner


def evaluate(
    cfg: Config,
    work_dir: Path,
    progress: ProgressHook,
    checkpoint: Path | None,
) -> tuple[dict, Runner]:
    """Evaluate a checkpoint with the test loop of a config.

    Args:
        cfg (Config): The config.
        work_dir (Path): Folder of logs.
        progress (ProgressHook): Who is told.
        checkpoint (Path, optional): What to load; None for freshly
            initialised weights.

    Returns:
        tuple[dict, Runner]: Metrics in percent, and the runner.
    """
    # What is tested needs no training data, and no training logs.
    for field in ('train_dataloader', 'train_cfg', 'optim_wrapper'):
        cfg[field] = None
    cfg.param_scheduler = None
    cfg.load_from = None if checkpoint is None else str(checkpoint)
    runner = _build(cfg, work_dir)
    runner.register_hook(progress)
    if checkpoint is None:
        runner.model.init_weights()
    with progress.interrupt:
        return runner.test(), runner


def latest_checkpoint(work_dir: Path) -> Path | None:
    """Find the last checkpoint that was written completely.

    mmengine names it in a file, by the path of that time; here the folder may
    have been moved since.

    Args:
        work_dir (Path): Folder of a run.

    Returns:
        Path | None: The checkpoint, if there is one.
    """
    named = None
    if (work_dir / 'last_checkpoint').is_file():
        named = find_latest_checkpoint(str(work_dir))
    if not named:
        return None
    path = work_dir / Path(named).name
    return path if path.is_file() else None


def _build(cfg: Config, work_dir: Path) -> Runner:
    cfg.work_dir = str(work_dir)
    # Runners of one process must not share a logger or a message hub.
    cfg.experiment_name = f'demo-{work_dir.name}-{time.time_ns()}'
    return build_runner(cfg)
