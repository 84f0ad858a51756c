"""Train and test with mmengine's Runner, resumably and without output."""

import json
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner, find_latest_checkpoint

from mmunimoco.engine.launch import build_runner
from mmunimoco.engine.pretrained_init import RandomWeightsHook

from .interrupt import SafeInterrupt

# Called with the fraction of the stage that is done, a few words (epoch,
# loss), and whether that is worth a line where there are no bars.
Report = Callable[[float, str, bool], None]


def train(
    cfg: Config, work_dir: Path, report: Report, share: float = 1.0
) -> Runner:
    """Train from a config, resuming from the last epoch in the folder.

    Args:
        cfg (Config): Resolved config.
        work_dir (Path): Folder of logs and checkpoints.
        report (Report): Called with the progress.
        share (float): Fraction of the stage that training takes. Defaults to
            1.0.

    Returns:
        Runner: After training.
    """
    cfg = deepcopy(cfg)
    checkpoint = latest_checkpoint(work_dir)
    if checkpoint is not None:
        cfg.resume, cfg.load_from = True, str(checkpoint)
    else:
        # A crash before the first checkpoint was recorded leaves it, and
        # PreflightHook does not start a new run beside it.
        for path in work_dir.glob('epoch_*.pth'):
            path.unlink()
    runner = _build(cfg, work_dir)
    with SafeInterrupt() as interrupt:
        runner.register_hook(ClockHook())
        runner.register_hook(StageHook(interrupt, report, share))
        runner.train()
    return runner


def evaluate(
    cfg: Config, work_dir: Path, checkpoint: Path | None
) -> tuple[dict[str, float], Runner]:
    """Run the test loop of a config.

    Args:
        cfg (Config): Resolved config.
        work_dir (Path): Folder of logs.
        checkpoint (Path, optional): Weights to load; None for those from
            which a training with this seed starts.

    Returns:
        tuple[dict[str, float], Runner]: Metrics, and the runner.
    """
    cfg = deepcopy(cfg)
    for field in ('train_dataloader', 'train_cfg', 'optim_wrapper'):
        cfg[field] = None
    cfg.param_scheduler = None
    cfg.load_from = None if checkpoint is None else str(checkpoint)
    runner = _build(cfg, work_dir)
    if checkpoint is None:
        runner.register_hook(RandomWeightsHook())
    with SafeInterrupt() as interrupt:
        runner.register_hook(StageHook(interrupt))
        return runner.test(), runner


def latest_checkpoint(work_dir: Path) -> Path | None:
    """Find the last complete checkpoint of a run, also in a moved folder."""
    if not (work_dir / 'last_checkpoint').is_file():
        return None
    # mmengine recorded the path of that time.
    path = work_dir / Path(find_latest_checkpoint(str(work_dir))).name
    return path if path.is_file() else None


def read_curves(work_dir: Path) -> dict[str, list[list[float]]]:
    """Read loss and kNN accuracy over the epochs from mmengine's logs.

    An interrupted training leaves one log per start. If several logs have an
    epoch, the last one counts, in which the epoch was completed.

    Args:
        work_dir (Path): Folder of a pre-training.

    Returns:
        dict: ``loss``, pairs of epoch and mean of the logged losses, and
        ``knn_top1``, pairs of epoch and accuracy in percent.
    """
    losses, scores = {}, {}
    for log in sorted(work_dir.glob('*/vis_data/scalars.json')):
        logged = {}
        for line in log.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # cut off by a crash
                continue
            if 'knn/top1' in record:
                scores[record['step']] = record['knn/top1']
            elif 'loss' in record and 'epoch' in record:
                logged.setdefault(record['epoch'], []).append(record['loss'])
        losses.update(logged)
    return dict(
        loss=[
            [e, round(sum(v) / len(v), 4)] for e, v in sorted(losses.items())
        ],
        knn_top1=[[e, round(v, 2)] for e, v in sorted(scores.items())],
    )


class ClockHook(Hook):
    """Measure the seconds of training across interruptions.

    They are stored in the message hub and so in each checkpoint; time after
    the checkpoint from which a run resumes does not count.
    """

    KEY = 'demo_seconds'

    def before_train(self, runner: Runner) -> None:
        """Continue from the value in the resumed checkpoint."""
        self._start = time.monotonic() - self.read(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Store the time before the checkpoint is written."""
        seconds = time.monotonic() - self._start
        runner.message_hub.update_info(self.KEY, seconds)

    # Includes the last validation.
    after_train = after_train_epoch

    @classmethod
    def read(cls, runner: Runner) -> float:
        """Seconds of training so far."""
        return runner.message_hub.runtime_info.get(cls.KEY, 0.0)


class StageHook(Hook):
    """Report progress, and stop between two steps after a signal.

    Args:
        interrupt (SafeInterrupt): Checked after each step.
        report (Report, optional): Called with the progress of training.
        share (float): Fraction of the stage that training takes. Defaults to
            1.0.
    """

    # After CheckpointHook: an epoch that is reported is saved.
    priority = 'LOWEST'

    def __init__(
        self,
        interrupt: SafeInterrupt,
        report: Report | None = None,
        share: float = 1.0,
    ) -> None:
        self.interrupt = interrupt
        self.report = report
        self.share = share
        self._score = ''

    def state_dict(self) -> dict:
        """What a checkpoint keeps: the last score."""
        return dict(score=self._score)

    def load_state_dict(self, state: dict) -> None:
        """Continue with the last score."""
        self._score = state['score']

    def after_train_iter(self, runner: Runner, batch_idx: int, **_) -> None:
        """Report the step."""
        self._report(runner, (runner.iter + 1) / runner.max_iters)
        self.interrupt.check()

    def after_train_epoch(self, runner: Runner) -> None:
        """Report the epoch."""
        self._report(runner, (runner.epoch + 1) / runner.max_epochs, True)

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """Remember the score, which is reported beside the loss."""
        self._score = ''.join(
            f', {name.replace("/", " ")} {value:.1f} %'
            for name, value in metrics.items()
            if name.endswith('top1')
        )

    def after_val_iter(self, runner: Runner, **_) -> None:
        """Stop after a signal."""
        self.interrupt.check()

    after_test_iter = after_val_iter

    def _report(
        self, runner: Runner, done: float, milestone: bool = False
    ) -> None:
        history = runner.message_hub.log_scalars.get('train/loss')
        loss = '' if history is None else f', loss {history.mean(20):.2f}'
        epoch = f'epoch {runner.epoch + 1}/{runner.max_epochs}'
        self.report(
            done * self.share, f'{epoch}{loss}{self._score}', milestone
        )


def _build(cfg: Config, work_dir: Path) -> Runner:
    cfg.work_dir = str(work_dir)
    # Runners of one process must not share a logger or a message hub.
    cfg.experiment_name = f'demo-{work_dir.name}-{time.time_ns()}'
    return build_runner(cfg)
