"""Time training steps of a config on synthetic images.

``python -m benchmarks.gpu_check.training_step CONFIG --out FILE.json``
"""

import argparse
import gc
import json
import resource
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

GIB = 2**30
# Each step meets other images than the last.
NUM_BATCHES = 4


@dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes:
        batch_size (int): Images a step.
        precision (str): 'fp32'; 'amp', what ``--amp`` does, fp16 with loss
            scaling; or 'bf16'.
        warmup (int): Steps before the clock starts.
        repeats (int): Steps that are timed.
        image_size (int): Height and width.
    """

    batch_size: int
    precision: str = 'fp32'
    warmup: int = 5
    repeats: int = 20
    image_size: int = 224


CUDA_CASES = [
    Case(batch_size, precision)
    for batch_size in (32, 256)
    for precision in ('fp32', 'amp', 'bf16')
]
CPU_CASES = [Case(2, warmup=1, repeats=2)]


def measure_cases(
    cfg: Config, cases: list[Case], device: str, save: Callable[[list], None]
) -> list[dict[str, Any]]:
    """Measure one case after the other.

    Args:
        cfg (Config): A pre-training config.
        cases (list[Case]): What to measure, smallest batch first.
        device (str): 'cuda' or 'cpu'.
        save (Callable): Called with all results after each case.

    Returns:
        list[dict]: For each case its fields, ``status``, ``reason`` and the
        numbers of :func:`measure_step`. A case that does not fit into memory
        is skipped, unless it has the smallest batch.
    """
    results = []
    smallest = min(case.batch_size for case in cases)
    for case in cases:
        try:
            result = measure_step(cfg, case, device)
        except torch.cuda.OutOfMemoryError:
            fits = case.batch_size > smallest
            result = dict(
                status='skipped' if fits else 'failed',
                reason='the GPU has too little memory',
            )
        except RuntimeError as error:  # torch's own; the rest still counts
            traceback.print_exc()
            result = dict(status='failed', reason=str(error)[:500])
        # What the failed case held would count for the next one.
        gc.collect()
        if device == 'cuda':
            torch.cuda.empty_cache()
        results.append(asdict(case) | result)
        print(results[-1], flush=True)
        save(results)
    return results


def measure_step(cfg: Config, case: Case, device: str) -> dict[str, Any]:
    """Train some steps as mmengine's loop does, and time them.

    The images are on the device beforehand: the step alone is timed, from
    uint8 images to updated weights, without data loader and copy.

    Args:
        cfg (Config): A pre-training config.
        case (Case): What to measure.
        device (str): 'cuda' or 'cpu'.

    Returns:
        dict: ``milliseconds`` (median), ``milliseconds_min``,
        ``milliseconds_max``, ``images_per_second``, ``peak_memory_gib`` (of
        the process on a CPU), ``loss_first``, ``loss_last``, ``loss_scale``
        (None without scaling), ``status``, ``reason``.
    """
    torch.manual_seed(0)
    model, optim_wrapper = build_step(cfg, case, device)
    batches = synthetic_batches(
        case, device, classes=model.head.num_classes or 1000
    )
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    losses, milliseconds = [], []
    for step in range(case.warmup + case.repeats):
        data = batches[step % len(batches)]
        elapsed, log = _timed_step(model, data, optim_wrapper, device)
        losses.append(log['loss'].item())
        if step >= case.warmup:
            milliseconds.append(elapsed)
    finite = all(
        torch.isfinite(x).all()
        for x in [torch.tensor(losses), *model.parameters()]
    )
    median = statistics.median(milliseconds)
    scaler = getattr(optim_wrapper, 'loss_scaler', None)
    return dict(
        status='passed' if finite else 'failed',
        reason='' if finite else 'a loss or a weight is not finite',
        milliseconds=median,
        milliseconds_min=min(milliseconds),
        milliseconds_max=max(milliseconds),
        images_per_second=1000 * case.batch_size / median,
        peak_memory_gib=_peak_memory(device) / GIB,
        loss_first=losses[0],
        loss_last=losses[-1],
        loss_scale=None if scaler is None else scaler.get_scale(),
    )


def build_step(cfg: Config, case: Case, device: str) -> tuple:
    """Build model and optimizer wrapper of a config, as the Runner does.

    Half of the queue's labels are set, so that there are positives.
    """
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    model_cfg = cfg.model.copy()
    model_cfg.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    model = MODELS.build(model_cfg)
    model.init_weights()
    labels = model.head.label_queue
    labels[::2].random_(0, model.head.num_classes or 1000)
    model = model.to(device).train()
    optim_cfg = cfg.optim_wrapper.copy()
    if case.precision != 'fp32':
        optim_cfg.type = 'AmpOptimWrapper'
        optim_cfg.setdefault('loss_scale', 'dynamic')
    if case.precision == 'bf16':
        optim_cfg.dtype = 'bfloat16'
    return model, build_optim_wrapper(model, optim_cfg)


def synthetic_batches(
    case: Case, device: str, classes: int, label_share: float = 1.0
) -> list[dict]:
    """Random uint8 images in two views; the first ones have a label."""
    size = (case.batch_size, 3, case.image_size, case.image_size)
    batches = []
    for _ in range(NUM_BATCHES):
        labels = torch.randint(classes, (case.batch_size,))
        labels[round(label_share * case.batch_size) :] = -1
        batches.append(
            dict(
                inputs=[
                    torch.randint(256, size, dtype=torch.uint8, device=device)
                    for _ in range(2)
                ],
                data_samples=[
                    DataSample().set_gt_label(x) for x in labels.tolist()
                ],
            )
        )
    return batches


def _timed_step(model, data, optim_wrapper, device) -> tuple[float, dict]:
    """One step; milliseconds and log values."""
    if device != 'cuda':
        start = time.perf_counter()
        log = model.train_step(data, optim_wrapper)
        return 1000 * (time.perf_counter() - start), log
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    log = model.train_step(data, optim_wrapper)
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end), log


def _peak_memory(device: str) -> int:
    """Peak in bytes: of torch's allocator, or of the process."""
    if device == 'cuda':
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='path of a pre-training config')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cuda')
    args = parser.parse_args()
    cfg = Config.fromfile(args.config)
    torch.backends.cudnn.benchmark = cfg.env_cfg.cudnn_benchmark
    header = dict(
        config=Path(args.config).name,
        images='synthetic, uint8, on the device beforehand',
        cudnn_benchmark=torch.backends.cudnn.benchmark,
        cudnn_allow_tf32=torch.backends.cudnn.allow_tf32,
        matmul_allow_tf32=torch.backends.cuda.matmul.allow_tf32,
        threads=torch.get_num_threads(),
    )

    def save(cases: list) -> None:
        args.out.write_text(json.dumps(header | dict(cases=cases), indent=2))

    cases = CUDA_CASES if args.device == 'cuda' else CPU_CASES
    measure_cases(cfg, cases, args.device, save)


if __name__ == '__main__':
    main()
