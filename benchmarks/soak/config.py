"""The config of a soak: the demo's, with the loop that resumes exactly."""

from pathlib import Path

from .plan import KEPT_CHECKPOINTS, Plan

BASE = 'configs/demo/unimoco_resnet18_fmnist-10pct.py'
_VALIDATIONS = 30
_TEXT = """\
# Written by tools/benchmarks/soak.py.
_base_ = [{base!r}]

custom_imports = dict(
    imports=['mmunimoco', 'benchmarks.soak.step_log_hook'],
    allow_failed_imports=False,
)
train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            dataset=dict(
                _delete_=True,
                type='SkipBrokenImages',
                max_broken={broken},
                dataset=dict(
                    type='CustomDataset',
                    data_root={images!r},
                    pipeline=[
                        dict(type='CheckedLoadImageFromFile'),
                        *_base_.train_pipeline,
                    ],
                ),
            ),
        )
    )
)
train_cfg = dict(
    type='ExactEpochLoop', max_epochs={epochs}, val_interval={val_interval}
)
default_hooks = dict(
    checkpoint=dict(
        by_epoch=False, interval={interval}, max_keep_ckpts={kept}
    )
)
custom_hooks = [*_base_.custom_hooks, dict(type='StepLogHook')]
randomness = dict(seed={seed}, deterministic=True)
"""


def write_config(
    path: Path, root: Path, plan: Plan, images: Path, broken: int
) -> None:
    """Write a config: 10 % labels, an epoch of 8 400 samples, kNN.

    Args:
        path (Path): The file.
        root (Path): The checkout.
        plan (Plan): Seed, epochs and interval.
        images (Path): Folder of the training images.
        broken (int): How many of them may be broken.
    """
    path.write_text(
        _TEXT.format(
            base=str(root / BASE),
            images=str(images),
            broken=broken,
            epochs=plan.epochs,
            val_interval=max(1, plan.epochs // _VALIDATIONS),
            interval=plan.interval,
            kept=KEPT_CHECKPOINTS,
            seed=plan.seed,
        )
    )
