import io

import pytest
from rich.console import Console

from mmunimoco.utils.estimate import Estimate, format_duration
from mmunimoco.utils.progress import ProgressDisplay

TITLES = dict(a='first', b='second', c='third')
WEIGHTS = dict(b=30.0, c=10.0)  # the first is finished


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
    estimate = Estimate(dict(a=100.0, b=100.0))
    assert estimate.seconds_left == 200.0
    # Half as fast as guessed: 400 s for the first 200.
    estimate.advance('a', 0.5)
    estimate.advance('a', 1.0)
    now[0] = 200.0
    assert estimate.fraction == 0.5
    assert 180 < estimate.seconds_left < 200
    estimate.advance('b', 1.0)
    assert estimate.seconds_left == 0.0
    assert estimate.fraction == 1.0


def test_estimate_of_stages_side_by_side(monkeypatch):
    now = [0.0]
    monkeypatch.setattr('time.monotonic', lambda: now[0])
    estimate = Estimate(dict(a=100.0, b=100.0, c=200.0), jobs=2)
    assert estimate.seconds_left == 200.0
    estimate.advance('a', 0.5)
    estimate.advance('b', 0.5)
    now[0] = 50.0
    assert estimate.seconds_left == 150.0


def _show(terminal: bool) -> str:
    out = io.StringIO()
    console = Console(
        file=out,
        force_terminal=terminal,
        width=120,
        color_system='standard' if terminal else None,
    )
    display = ProgressDisplay(console)
    with display.plan(TITLES, WEIGHTS, jobs=2):
        for name in WEIGHTS:
            display.begin(name)
        for name in WEIGHTS:
            display.update(name, 0.25, 'step')
            display.update(name, 0.5, 'epoch 1/2', milestone=True)
        for name in WEIGHTS:
            display.complete(name)
    return out.getvalue()


def test_without_a_terminal_there_is_a_line_a_milestone():
    lines = _show(terminal=False).splitlines()
    assert len(lines) == 6
    assert lines[1].startswith('[3/3] third: starting (about ')
    assert lines[2].startswith('[2/3] second: epoch 1/2 (about ')
    assert lines[-1].startswith('[3/3] third: done (about 0 s left)')
    assert not any('step' in line or '\x1b' in line for line in lines)


def test_terminal_gets_bars_with_an_estimate():
    text = _show(terminal=True)
    assert '━' in text
    assert '[2/3] second' in text
    assert '[3/3] third' in text
    assert 'all stages' in text
    assert ' left' in text
    assert '100 %' in text
