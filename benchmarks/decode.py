"""Case ``decode``: JPEG files decoded by the device, and by a worker."""

from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing

from mmunimoco.models.encoded_images import decode_crops, decode_images

from .contest import Contest, contest
from .measure import METHOD, stopwatch
from .trainer import decoding_config, epoch_rate, our_config, read_images

BATCH = 16  # of the worker
DEVICE_BATCH = dict(cpu=16, cuda=256)
IMAGES = dict(cpu=192, cuda=480)  # per round of a worker
VIEWS, BYTES = 'worker, LoadTwoCrops', 'worker, LoadEncodedCrops'
DECODE, CROP = 'device, decode', 'device, decode and crop'


def _decode_all(inputs: dict, device: torch.device) -> None:
    for _ in decode_images(inputs, device):
        pass


def decode(settings: Any) -> dict[str, Any]:
    """Run the case; see ``speed.py``."""
    init_default_scope('mmpretrain')
    # As in training: no OpenCV threads in a worker.
    set_multi_processing(mp_start_method='fork', opencv_num_threads=0)
    device, paths = settings.device, settings.image_paths()
    count = 2 * BATCH if settings.quick else IMAGES[device]
    batch = 4 if settings.quick else DEVICE_BATCH[device]

    def build_worker(cfg: Config) -> Callable[[], float]:
        read_images(cfg, paths, BATCH, count // BATCH, workers=1)
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        return lambda: epoch_rate(loader, BATCH, 1, lambda _: None, 'cpu')

    def build_device(function: Callable) -> Callable[[], float]:
        cfg = decoding_config('cpu')
        some = list(islice(cycle(paths), batch))
        read_images(cfg, some, batch, 1, workers=0)
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        inputs = next(iter(loader))['inputs']
        if not isinstance(inputs, dict):
            raise RuntimeError('a GPU can decode none of the images')
        encoded.append(len(inputs['names']))
        # Of those that the device decodes; the worker made the other views.
        inputs['views'] = inputs['views'][:0]
        inputs['view_rows'] = inputs['view_rows'][:0]
        inputs['rows'] = torch.arange(encoded[-1])

        def measure() -> float:
            seconds = stopwatch(
                lambda: function(inputs, torch.device(device)), device
            )
            return encoded[-1] / seconds

        return measure

    def results(found: Contest) -> dict[str, Any]:
        return dict(
            what='images per second of one data loader worker (one core) that '
            'reads, decodes and crops, and of one that leaves both to the '
            'device; and of the device, with files in memory: decoding '
            '(nvJPEG on a GPU, one thread of libjpeg on a CPU), and decoding '
            'with two crops of 224 x 224',
            time_method=METHOD,
            batch_on_device=batch,
            encoded_on_device=encoded[-1] if encoded else None,
            ratios=found.ratios(
                {
                    'worker, bytes / views': (BYTES, VIEWS),
                    'device, decode and crop / decode': (CROP, DECODE),
                    'device / worker with views': (CROP, VIEWS),
                }
            ),
            images_per_second=found.spread(),
            left_out=found.left_out,
        )

    encoded = []
    found = contest(
        {
            DECODE: partial(build_device, _decode_all),
            CROP: partial(build_device, decode_crops),
            VIEWS: partial(build_worker, our_config('cpu')),
            BYTES: partial(build_worker, decoding_config('cpu')),
        },
        settings.rounds(9),
        settings.budget,
        save=lambda found: settings.save(results(found)),
    )
    return results(found)
