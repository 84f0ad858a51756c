"""A demo small enough for tests: the real configs, cut down."""

import io
from pathlib import Path
from unittest.mock import patch

from rich.console import Console

from demo.settings import LINEAR_CONFIG, PRETRAIN_CONFIGS, DemoSettings
from demo.workflow import run_demo

TINY_PRETRAIN = """
_base_ = [{base!r}]
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    neck=dict(in_channels=64, hid_channels=16),
    head=dict(queue_len=64),
)
train_dataloader = dict(
    batch_size=20,
    num_workers=0,
    persistent_workers=False,
    dataset={dataset},
)
train_cfg = dict(max_epochs={epochs}, val_interval=1)
val_cfg = dict(bank_dataloader=dict(dataset=dict(indices=200)))
test_cfg = dict(bank_dataloader=dict(dataset=dict(indices=200)))
val_dataloader = dict(dataset=dict(indices=100))
test_dataloader = dict(dataset=dict(indices=100))
default_hooks = dict(logger=dict(interval=5))
"""
TINY_LINEAR = """
_base_ = [{base!r}]
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    head=dict(in_channels=64),
)
train_dataloader = dict(
    batch_size=50,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(indices=200),
)
val_dataloader = dict(dataset=dict(indices=100))
test_dataloader = dict(dataset=dict(indices=100))
train_cfg = dict(max_epochs=1)
"""


def write_tiny_configs(folder: Path, epochs: int = 2) -> Path:
    """Write cut-down versions of the demo's configs.

    Args:
        folder (Path): Where to.
        epochs (int): Length of pre-training. Defaults to 2.

    Returns:
        Path: The folder.
    """
    shipped = Path(__file__).parents[1] / 'configs' / 'demo'
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*PRETRAIN_CONFIGS.values(), LINEAR_CONFIG):
        text = TINY_LINEAR if name == LINEAR_CONFIG else TINY_PRETRAIN
        dataset = 'dict(dataset=dict(indices=200))'
        if name == PRETRAIN_CONFIGS[0.1]:  # RepeatLabeled is around it
            dataset = f'dict(dataset={dataset})'
        text = text.format(
            base=str(shipped / name), epochs=epochs, dataset=dataset
        )
        (folder / name).write_text(text)
    return folder


def run_captured(settings: DemoSettings, **options) -> tuple[int, str]:
    """Run the demo, two stages at a time; exit status and output."""
    out = io.StringIO()
    # A thread a process, whatever the machine: this one has computed, and
    # OpenMP's threads do not survive a fork.
    with patch('demo.pool.CORES', 2):
        status = run_demo(
            settings, Console(file=out, width=100), jobs=2, **options
        )
    return status, out.getvalue()
