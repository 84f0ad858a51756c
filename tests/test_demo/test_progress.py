import io

import pytest
from rich.console import Console

from mmunimoco.demo.estimate import Estimate, format_duration
from mmunimoco.demo.progress import PlannedStage, Reporter

PLAN = [
    PlannedStage('first', 10.0, True),
    PlannedStage('second', 30.0, False),
    PlannedStage('third', 10.0, False),
]


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [
        (0.4, '0 s'),
        (59.4, '59 s'),
        (59.6, '1 min 00 s'),
        (200, '3 min 20 s'),
        (3900, '1 h 05 min'),
    ],
)
def test_format_duration(seconds, text):
    assert format_duration(seconds) == text


def test_estimate_follows_the_pace_of_this_machine(monkeypatch):
    now = [0.0]
    monkeypatch.setattr('time.monotonic', lambda: now[0])
    estimate = Estimate([100.0, 100.0])
    assert estimate.seconds_left == 200.0
    # Half as fast as guessed: 400 s for the first 200.
    estimate.advance(100.0, 0.5)
    estimate.complete(100.0)
    now[0] = 200.0
    assert estimate.fraction == 0.5
    assert 180 < estimate.seconds_left < 200
    estimate.complete(100.0)
    assert estimate.seconds_left == 0.0
    assert estimate.fraction == 1.0


def _show(terminal: bool) -> str:
    out = io.StringIO()
    console = Console(
        file=out,
        force_terminal=terminal,
        width=120,
        color_system='standard' if terminal else None,
    )
    reporter = Reporter(console)
    with reporter.plan(PLAN):
        for index in (1, 2):
            with reporter.stage(index):
                reporter.update(0.25, 'step')
                reporter.update(0.5, 'epoch 1/2', milestone=True)
    return out.getvalue()


def test_without_a_terminal_there_is_a_line_a_milestone():
    lines = _show(terminal=False).splitlines()
    assert len(lines) == 6
    assert lines[1].startswith('[2/3] second: epoch 1/2 (about ')
    assert lines[-1].startswith('[3/3] third: done (about 0 s left)')
    assert not any('step' in line or '\x1b' in line for line in lines)


def test_terminal_gets_bars_with_an_estimate():
    text = _show(terminal=True)
    assert '━' in text
    assert '[2/3] second' in text
    assert 'all stages' in text
    assert ' left' in text
    assert '100 %' in text
