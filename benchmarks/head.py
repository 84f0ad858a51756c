"""Case ``head``: loss and queue, streamed, against the published form."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmpretrain.registry import MODELS
from torch import Tensor
from torch.nn import functional

from . import published
from .measure import METHOD, quartiles, ratio, time_interleaved
from .peak_memory import METHODS, peak_extra_bytes

# Name -> this project's config, and the same loss on the matrix of logits.
LOSSES = {
    'UniCon': (dict(type='UniConLoss'), published.unicon),
    'UniCon, mean': (
        dict(type='UniConLoss', positive_reduction='mean'),
        published.unicon_mean,
    ),
    'SupCon, out': (
        dict(type='SupConLoss', reduction_position='out'),
        published.supcon_out,
    ),
    'SupCon, in': (
        dict(type='SupConLoss', reduction_position='in'),
        published.supcon_in,
    ),
    'InfoNCE': (dict(type='InfoNCELoss'), published.info_nce),
}
LABEL_SHARES = (0.0, 0.1, 1.0)
QUEUE_LENGTHS = (1024, 4096, 16384, 262144)
TEMPERATURE, CLASSES = 0.2, 1000
# Largest relative difference of the two losses in float32.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Problem:
    """Shape of what both heads are given.

    Attributes:
        loss (str): Key of :data:`LOSSES`.
        label_share (float): Share of labeled queries and keys.
        queue_len (int): Number of keys K.
        batch (int): Number of queries N.
        dim (int): Length C of queries and keys.
        precision (str): 'fp32', or 'bf16' for autocast around both heads.
    """

    loss: str = 'UniCon'
    label_share: float = 1.0
    queue_len: int = 65536
    batch: int = 256
    dim: int = 128
    precision: str = 'fp32'

    def __str__(self) -> str:
        text = f'{self.loss}, {100 * self.label_share:g} % labels'
        return f'{text}, K {self.queue_len}, {self.precision}'


class Heads:
    """Both heads with equal queues, ready for the same batch.

    Args:
        problem (Problem): Shapes and loss.
        device (str): 'cpu' or 'cuda'.
    """

    def __init__(self, problem: Problem, device: str) -> None:
        torch.manual_seed(0)
        n, length, dim = problem.batch, problem.queue_len, problem.dim
        config, formula = LOSSES[problem.loss]

        def draw_labels(count: int) -> Tensor:
            labels = torch.randint(CLASSES, (count,))
            unlabeled = torch.rand(count) >= problem.label_share
            return labels.masked_fill(unlabeled, -1).to(device)

        def draw_rows(count: int) -> Tensor:
            rows = torch.randn(count, dim)
            return functional.normalize(rows, dim=1).to(device)

        self.ours = MODELS.build(
            dict(
                type='UniMoCoHead',
                feat_dim=dim,
                queue_len=length,
                temperature=TEMPERATURE,
                loss=config,
            )
        ).to(device)
        self.ours.queue.copy_(draw_rows(length))
        self.ours.label_queue.copy_(draw_labels(length))
        self.published = published.PublishedHead(
            self.ours.queue.T, TEMPERATURE, formula
        )
        self.published.label_queue.copy_(self.ours.label_queue)
        self.query, self.key = draw_rows(n), draw_rows(n)
        self.labels = draw_labels(n)
        self._autocast = (
            torch.autocast(device, torch.bfloat16)
            if problem.precision == 'bf16'
            else contextlib.nullcontext()
        )

    def step_ours(self) -> Tensor:
        """Compute loss, log values and gradient, enqueue; return the loss."""
        query = self.query.clone().requires_grad_()
        with self._autocast:
            loss = self.ours.loss(query, self.key, self.labels)['loss']
        loss.backward()
        return loss.detach()

    def step_published(self) -> Tensor:
        """Compute loss and gradient, enqueue; return the loss."""
        query = self.query.clone().requires_grad_()
        with self._autocast:
            loss = self.published.loss(query, self.key, self.labels)
        loss.backward()
        self.published.enqueue(self.key, self.labels)
        return loss.detach()


def head(settings: Any) -> dict[str, Any]:
    """Run the case; see ``speed.py``."""
    first = Problem()
    if settings.quick:
        first = replace(first, queue_len=1024, batch=16, dim=16)
    rounds = settings.rounds(20 if settings.device == 'cuda' else 7)
    problems = [
        replace(first, loss=loss, label_share=share)
        for loss in LOSSES
        for share in LABEL_SHARES
    ]
    result = measure(problems, settings.device, rounds)
    # Few rounds: the longest queue takes seconds each on a CPU.
    lengths = QUEUE_LENGTHS[:1] if settings.quick else QUEUE_LENGTHS
    others = [replace(first, queue_len=length) for length in lengths]
    if settings.device == 'cuda':
        others += [
            replace(first, precision='bf16', label_share=share)
            for share in LABEL_SHARES
        ]
    for key, values in measure(
        others, settings.device, min(rounds, 3)
    ).items():
        result[key] |= values
    return dict(
        what='forward, backward and enqueue; ours with its log values. N '
        f'{first.batch}, C {first.dim}, temperature {TEMPERATURE}, {CLASSES} '
        'classes',
        time_method=METHOD,
        memory_method=METHODS[settings.device],
        **result,
    )


def measure(
    problems: Sequence[Problem], device: str, rounds: int
) -> dict[str, dict[str, Any]]:
    """Measure both heads on several problems, all of them taking turns.

    Args:
        problems (Sequence[Problem]): What the heads are given.
        device (str): 'cpu' or 'cuda'.
        rounds (int): Number of timed rounds.

    Returns:
        dict: By problem: ``ratios`` (time, ours / published),
        ``memory_ratios``, ``seconds`` and ``peak_bytes`` of both.

    Raises:
        RuntimeError: If the two losses differ in float32, so that a ratio of
            their times would mean nothing.
    """
    steps, peaks = {}, {}
    for problem in problems:
        heads = Heads(problem, device)
        ours, theirs = heads.step_ours().item(), heads.step_published().item()
        if problem.precision == 'fp32' and abs(ours / theirs - 1) > TOLERANCE:
            raise RuntimeError(
                f'{problem}: losses differ, {ours} and {theirs}'
            )
        pair = dict(ours=heads.step_ours, published=heads.step_published)
        peaks[str(problem)] = {
            name: peak_extra_bytes(step, device) for name, step in pair.items()
        }
        steps |= {(str(problem), name): step for name, step in pair.items()}
    # Warm by now: each step ran twice.
    seconds = time_interleaved(steps, rounds, device, warmup=0)
    return dict(
        ratios={
            name: ratio(seconds[name, 'ours'], seconds[name, 'published'])
            for name in peaks
        },
        memory_ratios={
            name: round(peak['ours'] / peak['published'], 5)
            for name, peak in peaks.items()
        },
        seconds={
            name: {
                which: quartiles(seconds[name, which])
                for which in ('ours', 'published')
            }
            for name in peaks
        },
        peak_bytes=peaks,
    )
