"""The head: ours, streamed over the queue, against the published form."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from matplotlib.axes import Axes
from mmpretrain.registry import MODELS
from torch.nn import functional

from . import published
from .case import OURS, PUBLISHED, Case, Settings, Ticker
from .formats import draw_lines, in_bytes, in_ratio, in_time
from .peak_memory import METHODS, peak_extra_bytes
from .timing import METHOD, ratio_spread, spread, time_interleaved

# Config of ours, and the same loss on the whole matrix of logits.
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
QUEUE_LENGTHS = (1024, 4096, 16384, 65536, 262144)
TEMPERATURE, CLASSES = 0.2, 1000
# Both losses in float32; larger, and it was not the same that was timed.
LARGEST_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Problem:
    """What a head is asked.

    Attributes:
        loss (str): Of :data:`LOSSES`.
        label_share (float): Share of queries and keys that are labeled.
        queue_len (int): Number of keys K.
        batch (int): Number of queries N.
        dim (int): Length C of queries and keys.
        precision (str): 'fp32', or 'bf16' for autocast around both.
    """

    loss: str = 'UniCon'
    label_share: float = 1.0
    queue_len: int = 65536
    batch: int = 256
    dim: int = 128
    precision: str = 'fp32'


class Heads:
    """Both heads with the same queues, ready to take the same batch.

    Args:
        problem (Problem): What they are asked.
        device (str): 'cpu' or 'cuda'.
    """

    def __init__(self, problem: Problem, device: str) -> None:
        generator = torch.Generator().manual_seed(0)
        n, c, k = problem.batch, problem.dim, problem.queue_len

        def draw_labels(count: int) -> torch.Tensor:
            labels = torch.randint(CLASSES, (count,), generator=generator)
            known = torch.rand(count, generator=generator)
            labels[known >= problem.label_share] = -1
            return labels.to(device)

        def draw_rows() -> torch.Tensor:
            rows = torch.randn(n, c, generator=generator)
            return functional.normalize(rows, dim=1).to(device)

        config, formula = LOSSES[problem.loss]
        self.ours = MODELS.build(
            dict(
                type='UniMoCoHead',
                feat_dim=c,
                queue_len=k,
                temperature=TEMPERATURE,
                num_classes=CLASSES,
                loss=config,
            )
        ).to(device)
        self.published = published.PublishedHead(
            self.ours.queue.T, TEMPERATURE, formula
        )
        labels = draw_labels(k)
        self.ours.label_queue.copy_(labels)
        self.published.label_queue.copy_(labels)
        self.query, self.key = draw_rows(), draw_rows()
        self.labels = draw_labels(n)
        self._autocast = contextlib.nullcontext
        if problem.precision == 'bf16':
            self._autocast = lambda: torch.autocast(device, torch.bfloat16)

    def step_ours(self) -> torch.Tensor:
        """Loss and log values, gradient, enqueue; return the loss."""
        query = self.query.clone().requires_grad_()
        with self._autocast():
            values = self.ours.loss(query, self.key, self.labels)
        values['loss'].backward()
        return values['loss'].detach()

    def step_published(self) -> torch.Tensor:
        """Loss, gradient, enqueue; return the loss."""
        query = self.query.clone().requires_grad_()
        with self._autocast():
            loss = self.published.loss(query, self.key, self.labels)
        loss.backward()
        self.published.enqueue(self.key, self.labels)
        return loss.detach()


def measure(
    problems: Sequence[Problem],
    device: str,
    repeats: int,
    tick: Callable[[], Any],
) -> list[dict[str, Any]]:
    """Measure both heads at each of some problems.

    The problems take turns too: what else a machine does can last longer than
    all rounds of one problem.

    Args:
        problems (Sequence[Problem]): What they are asked.
        device (str): 'cpu' or 'cuda'.
        repeats (int): Rounds that are timed.
        tick (Callable): Called after each round.

    Returns:
        list[dict]: Of each problem its fields; ``ours`` and ``published``,
        each with ``seconds`` (median, quartiles) and ``peak_bytes``;
        ``time_ratio`` (median, quartiles); ``memory_ratio``;
        ``loss_difference``, relative.

    Raises:
        RuntimeError: If two losses differ.
    """
    results, steps = [], {}
    for problem in problems:
        heads = Heads(problem, device)
        pair = {OURS: heads.step_ours, PUBLISHED: heads.step_published}
        steps |= {(problem, name): step for name, step in pair.items()}
        results.append(
            dict(
                asdict(problem),
                loss_difference=_difference(problem, heads),
                memory=[peak_extra_bytes(s, device) for s in pair.values()],
            )
        )
    # Warm by now: each has computed its loss, and shown its memory.
    seconds = time_interleaved(steps, repeats, device, warmup=0, tick=tick)
    for problem, result in zip(problems, results, strict=True):
        ours, theirs = (seconds[problem, x] for x in (OURS, PUBLISHED))
        peak, their_peak = result.pop('memory')
        result |= dict(
            ours=dict(seconds=spread(ours), peak_bytes=peak),
            published=dict(seconds=spread(theirs), peak_bytes=their_peak),
            time_ratio=ratio_spread(ours, theirs),
            memory_ratio=round(peak / their_peak, 5),
        )
    return results


def _difference(problem: Problem, heads: Heads) -> float:
    """How far the two losses are apart."""
    ours, theirs = heads.step_ours().item(), heads.step_published().item()
    difference = abs(ours / theirs - 1)
    # bf16 logits are good to 8 bits; the published form computes with them.
    if problem.precision == 'fp32' and not difference < LARGEST_DIFFERENCE:
        raise RuntimeError(f'{problem}: losses differ, {ours} and {theirs}')
    return difference


@dataclass(frozen=True)
class Group:
    """Problems that take turns.

    Attributes:
        what (str): They have in common.
        problems (list[Problem]): The group.
        rounds (int): That are timed.
    """

    what: str
    problems: list[Problem]
    rounds: int


def plan(settings: Settings) -> list[Group]:
    """List the problems.

    The first of the first group is the one whose ratios are quoted.
    """
    first = Problem()
    if settings.quick:
        first = replace(first, queue_len=1024, batch=16, dim=16)
    on_gpu = settings.device == 'cuda'
    alike = [
        replace(first, loss=loss, label_share=share)
        for loss in LOSSES
        for share in LABEL_SHARES
    ]
    alike.sort(key=lambda problem: problem != first)
    lengths = QUEUE_LENGTHS[:1] if settings.quick else QUEUE_LENGTHS
    longer = [
        replace(first, queue_len=length)
        for length in lengths
        if length != first.queue_len
    ]
    rounds = settings.repeats(20 if on_gpu else 7)
    groups = [
        Group('all losses', alike, rounds),
        Group('queue lengths', longer, rounds if on_gpu else min(rounds, 3)),
    ]
    if on_gpu:
        halves = [
            replace(first, precision='bf16', label_share=share)
            for share in LABEL_SHARES
        ]
        groups.append(Group('bf16', halves, rounds))
    return [group for group in groups if group.problems]


def run(
    settings: Settings, tell: Callable[[float, str], None]
) -> dict[str, Any]:
    """Measure all problems; see :class:`Case`."""
    groups = plan(settings)
    ticker = Ticker(tell, sum(len(g.problems) * g.rounds for g in groups))
    cases = []
    for group in groups:
        ticker.text = group.what
        tick = partial(ticker, len(group.problems))
        cases += measure(group.problems, settings.device, group.rounds, tick)
    first = cases[0]
    alike = cases[: len(groups[0].problems)]
    return dict(
        time_ratio=first['time_ratio']['median'],
        time_ratio_quartiles=[first['time_ratio'][q] for q in ('q1', 'q3')],
        memory_ratio=first['memory_ratio'],
        time_ratio_worst=max(x['time_ratio']['median'] for x in alike),
        memory_ratio_worst=max(x['memory_ratio'] for x in alike),
        what='forward, backward and enqueue; ours with its log values. The '
        'ratios on top are of the first case; *_worst of all losses and '
        'label shares at its queue length',
        temperature=TEMPERATURE,
        classes=CLASSES,
        time_method=METHOD,
        memory_method=METHODS[settings.device],
        cases=cases,
    )


def rows(result: dict) -> list[tuple[str, str, str, str]]:
    """Rows of the table: time and peak of memory."""
    lines = []
    for case in result['cases']:
        name = f'{case["loss"]}, {100 * case["label_share"]:g} % labels'
        if case['precision'] != 'fp32':
            name += f', {case["precision"]}'
        if case['queue_len'] != result['cases'][0]['queue_len']:
            name += f', K {case["queue_len"]}'
        ours, theirs = (
            f'{in_time(case[key]["seconds"])}, '
            f'{in_bytes(case[key]["peak_bytes"])}'
            for key in ('ours', 'published')
        )
        ratio = in_ratio(case['time_ratio'])
        memory = f'{case["memory_ratio"]:.3f}'
        lines.append((name, ours, theirs, f'{ratio}, {memory}'))
    return lines


def draw(axes: Axes, result: dict) -> None:
    """Draw time and memory over the length of the queue."""
    first = result['cases'][0]
    same = ('loss', 'label_share', 'batch', 'dim', 'precision')
    cases = sorted(
        (
            case
            for case in result['cases']
            if all(case[key] == first[key] for key in same)
        ),
        key=lambda case: case['queue_len'],
    )
    lines = {
        name: [
            (case['queue_len'], 1000 * case[key]['seconds']['median'])
            for case in cases
        ]
        for name, key in ((OURS, 'ours'), (PUBLISHED, 'published'))
    }
    draw_lines(axes, lines)
    axes.set(
        title=f'Head, {first["batch"]} queries, forward and backward',
        xlabel='keys in the queue',
        ylabel='milliseconds',
        xscale='log',
        yscale='log',
    )


CASE = Case(
    name='head',
    title='loss and queue',
    seconds=dict(cpu=95, cuda=60),
    run=run,
    rows=rows,
    draw=draw,
    headlines=('time_ratio', 'memory_ratio'),
)
