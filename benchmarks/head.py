"""Case ``head``: loss and queue against the published form."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional

from mmunimoco.engine.step_options import compile_head
from mmunimoco.models.labels import check_labels

from . import published
from .budget import Budget
from .contest import Contest, contest
from .measure import METHOD, count_kernels, quartiles, stopwatch
from .peak_memory import METHODS, peak_extra_bytes
from .turns import are_taken

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
_COMPILED = ('compiled', 'graphs')


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
        if self.batch == 32:
            text += ', N 32'
        return f'{text}, K {self.queue_len}, {self.precision}'


class Heads:
    """The heads with equal queues, ready for the same batch.

    'ours' is the loop over chunks of the queue, 'fused' the kernel for GPUs,
    'compiled' the same with all around it compiled, 'graphs' the same replayed
    from CUDA graphs.

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

        self.ours, self.fused, self.compiled, self.graphs = (
            MODELS.build(
                dict(
                    type='UniMoCoHead',
                    feat_dim=dim,
                    queue_len=length,
                    temperature=TEMPERATURE,
                    loss=config,
                    fused=fused,
                )
            ).to(device)
            for fused in (False, None, None, None)
        )
        self.ours.queue.copy_(draw_rows(length))
        self.ours.label_queue.copy_(draw_labels(length))
        for other in self.fused, self.compiled, self.graphs:
            other.load_state_dict(self.ours.state_dict())
        compile_head(self.compiled)
        compile_head(self.graphs, mode='reduce-overhead')
        self.published = published.PublishedHead(
            self.ours.queue.T, TEMPERATURE, formula
        )
        self.published.label_queue.copy_(self.ours.label_queue)
        self.query, self.key = draw_rows(n), draw_rows(n)
        # As in training, the host knows which labels there are.
        self.labels = check_labels(draw_labels(n), None, False)
        self._autocast = (
            torch.autocast(device, torch.bfloat16)
            if problem.precision == 'bf16'
            else contextlib.nullcontext()
        )

    def step_ours(self) -> Tensor:
        """Compute loss, log values and gradient, enqueue; return the loss."""
        return self._step(self.ours)

    def step_fused(self) -> Tensor:
        """The same by the fused kernel."""
        return self._step(self.fused)

    def step_compiled(self) -> Tensor:
        """The same with all around the kernel compiled."""
        return self._step(self.compiled)

    def step_graphs(self) -> Tensor:
        """The same, replayed from CUDA graphs."""
        torch.compiler.cudagraph_mark_step_begin()
        return self._step(self.graphs)

    def _step(self, head: nn.Module) -> Tensor:
        query = self.query.clone().requires_grad_()
        with self._autocast:
            loss = head.loss(query, self.key, self.labels)['loss']
        loss.backward()
        return loss.detach()

    def step_published(self) -> Tensor:
        """Compute loss and gradient, enqueue; return the loss."""
        query = self.query.clone().requires_grad_()
        with self._autocast:
            loss = self.published.loss(query, self.key, self.labels.labels)
        loss.backward()
        self.published.enqueue(self.key, self.labels.labels)
        return loss.detach()


def head(settings: Any) -> dict[str, Any]:
    """Run the case; see ``speed.py``."""
    first = Problem()
    if settings.quick:
        first = replace(first, queue_len=1024, batch=16, dim=16)
    rounds = settings.rounds(20 if settings.device == 'cuda' else 7)
    problems = [
        replace(first, loss=loss, label_share=share)
        # What is most asked for first, should the time be short.
        for share in reversed(LABEL_SHARES)
        for loss in LOSSES
    ]
    # Few rounds: the longest queue takes seconds each on a CPU.
    lengths = QUEUE_LENGTHS[:1] if settings.quick else QUEUE_LENGTHS
    others = [replace(first, queue_len=length) for length in lengths]
    if settings.device == 'cuda':
        others.insert(0, replace(first, batch=32))
        others += [
            replace(first, precision='bf16', label_share=share)
            for share in LABEL_SHARES
        ]
    result = dict(
        what='forward, backward and enqueue; ours with its log values. N '
        f'{first.batch} unless given, C {first.dim}, temperature '
        f'{TEMPERATURE}, {CLASSES} classes. ours: the loop over the queue; '
        'fused: the kernel, on a GPU',
        time_method=METHOD,
        memory_method=METHODS[settings.device],
    )
    for share, (some, count) in zip(
        (2, 1), ((problems, rounds), (others, min(rounds, 3))), strict=True
    ):
        before = dict(result)
        found = measure(
            some,
            settings.device,
            count,
            # Waiting for other processes is no time of a part.
            settings.budget.share(1 if are_taken() else share),
            lambda values, before=before: settings.save(
                _merge(before, values)
            ),
        )
        result = _merge(before, found)
    return result


def measure(
    problems: Sequence[Problem],
    device: str,
    rounds: int,
    budget: Budget | None = None,
    save: Callable[[dict], None] = lambda _: None,
) -> dict[str, dict[str, Any]]:
    """Measure the heads on several problems, all of them taking turns.

    Args:
        problems (Sequence[Problem]): What the heads are given.
        device (str): 'cpu' or 'cuda'.
        rounds (int): Number of timed rounds.
        budget (Budget, optional): Defaults to no limit.
        save (Callable): Called with the results so far.

    Returns:
        dict: By problem: ``ratios`` (time, ours / published and, on a GPU,
        those of the other heads), ``memory_ratios``, ``seconds``,
        ``peak_bytes`` and, on a GPU, ``kernels`` that a step launches.

    A head whose loss differs in float32 is left out: a ratio of times would
    mean nothing.
    """
    names = ('published', 'ours')
    if device == 'cuda':
        names += ('fused', *_COMPILED)
        # The heads share their code, of which torch compiles few variants.
        config = torch._dynamo.config
        old = not hasattr(config, 'recompile_limit')  # torch before 2.7
        limit = 'cache_size_limit' if old else 'recompile_limit'
        setattr(config, limit, 64)
        config.automatic_dynamic_shapes = False
    builders, peaks = {}, {str(problem): {} for problem in problems}
    kernels = {str(problem): {} for problem in problems}
    for problem in problems:
        # Built when the first of its contestants is.
        make = cache(partial(_build, problem, device))
        for name in names:
            if name in _COMPILED and not _is_compiled(problem, name):
                continue
            builders[str(problem), name] = partial(
                *(_contestant, make, name, problem),
                *(peaks[str(problem)], kernels[str(problem)], device),
            )
    # Warm by then: each step ran twice.
    found = contest(
        builders,
        rounds,
        budget,
        warmup=0,
        save=lambda values: save(_by_problem(values, peaks, kernels)),
    )
    return _by_problem(found, peaks, kernels)


def _is_compiled(problem: Problem, name: str) -> bool:
    """Whether to compile a head, which takes longer than all the rest."""
    wanted = Problem(loss=problem.loss, batch=problem.batch)
    return problem == wanted and (name != 'graphs' or problem.batch == 32)


def _build(problem: Problem, device: str) -> tuple[Heads, float]:
    """Build the heads of a problem; also return the first published loss."""
    heads = Heads(problem, device)
    return heads, heads.step_published().item()


def _contestant(
    make: Callable[[], tuple[Heads, float]],
    name: str,
    problem: Problem,
    peaks: dict,
    kernels: dict,
    device: str,
) -> Callable[[], float]:
    heads, expected = make()
    step = getattr(heads, f'step_{name}')
    if name != 'published' and problem.precision == 'fp32':
        loss = step().item()
        if not abs(loss / expected - 1) <= TOLERANCE:
            raise RuntimeError(
                f'{problem}: losses differ, {loss} and published {expected}'
            )
    peaks[name] = peak_extra_bytes(step, device)
    if device == 'cuda':
        kernels[name] = count_kernels(step)
    return lambda: stopwatch(step, device)


def _by_problem(found: Contest, peaks: dict, kernels: dict) -> dict[str, dict]:
    result = dict(ratios={}, memory_ratios={}, seconds={}, peak_bytes={})
    result['kernels'] = {name: dict(x) for name, x in kernels.items() if x}
    for problem, peak in peaks.items():
        measured = [name for name in peak if (problem, name) in found.values]
        if not measured:
            continue
        result['peak_bytes'][problem] = dict(peak)
        result['seconds'][problem] = {
            name: quartiles(found.values[problem, name]) for name in measured
        }
        for name in measured:
            if name == 'published' or 'published' not in measured:
                continue
            key = problem if name == 'ours' else f'{problem}, {name}'
            pair = (problem, name), (problem, 'published')
            result['ratios'] |= found.ratios({key: pair})
            result['memory_ratios'][key] = round(
                peak[name] / peak['published'], 5
            )
    left_out = dict(found.left_out)
    if 'rounds' in left_out:
        left_out[f'rounds of {next(iter(peaks))}'] = left_out.pop('rounds')
    return result | dict(left_out=left_out)


def _merge(first: dict, second: dict) -> dict:
    """Join two results, whose dicts are by problem."""
    return first | {
        key: first.get(key, {}) | values for key, values in second.items()
    }
