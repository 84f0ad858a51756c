"""Case ``end2end``: from JPEG files to updated weights."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from mmengine.config import Config

from .contest import Contest, contest, title
from .measure import METHOD
from .step import MOCO, SIZES, build_trainer, sizes_of
from .trainer import decoding_config, epoch_rate, moco_config, our_config

OURS, DECODING = 'ours', 'ours, decoding on the device'
STEPS = dict(cpu=6, cuda=20)
FILES, ALONE = 'from files', 'step alone'


def end2end(settings: Any) -> dict[str, Any]:
    """Run the case; see ``speed.py``."""
    size, device = sizes_of(settings, SIZES)[-1], settings.device
    epoch = 2 if settings.quick else STEPS[device]
    # What the workers load before the first step is done.
    skip = 1 + 2 * settings.workers
    trainers = {}

    def build_files(name: str, cfg: Config) -> Callable[[], float]:
        trainer = build_trainer(cfg, settings, size, skip + epoch)
        trainers[name] = trainer
        return lambda: epoch_rate(
            trainer.loader, size.batch, skip, trainer.step, device
        )

    def build_alone(name: str) -> Callable[[], float]:
        trainer = trainers[name]
        batch = next(iter(trainer.loader))
        if name != DECODING:  # whose files stay on the host
            batch = trainer.model.data_preprocessor.cast_data(batch)
        batches = [batch] * (epoch + 1)
        return lambda: epoch_rate(batches, size.batch, 1, trainer.step, device)

    def results(found: Contest) -> dict[str, Any]:
        pairs = {f'{OURS} / {MOCO}': ((OURS, FILES), (MOCO, FILES))}
        pairs[f'{DECODING} / {OURS}'] = (DECODING, FILES), (OURS, FILES)
        for name in configs:
            pairs[f'{name}, {FILES} / {ALONE}'] = (name, FILES), (name, ALONE)
        return dict(
            what='JPEG files through the data loader of each config to '
            'updated weights, hooks included; the images are unlabeled. '
            f'"{ALONE}" repeats a batch that is on the device (decoding on '
            'the device: of files in memory)',
            time_method=METHOD,
            **asdict(size),
            workers=settings.workers,
            ratios=found.ratios(pairs),
            images_per_second={
                title(name): values for name, values in found.spread().items()
            },
            left_out=found.left_out,
        )

    configs = {
        OURS: our_config,
        DECODING: decoding_config,
        MOCO: moco_config,
    }
    builders = {}
    for name, read in configs.items():
        builders[name, FILES] = partial(build_files, name, read(device))
        builders[name, ALONE] = partial(build_alone, name)
    found = contest(
        builders,
        settings.rounds(3),
        settings.budget,
        warmup=0,  # epochs start before their clock does
        save=lambda found: settings.save(results(found)),
    )
    return results(found)
