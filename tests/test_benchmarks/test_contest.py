"""Contestants of one process take turns, and so do processes."""

import fcntl

import pytest

from benchmarks import turns
from benchmarks.budget import Budget
from benchmarks.contest import contest


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """Name the file of the turns; returns a function: try to lock it."""
    path = tmp_path / 'turns'
    monkeypatch.setenv(turns.FILE, str(path))

    def can_lock(kind):
        with open(path, 'a') as file:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    return can_lock


def test_others_prepare_while_it_prepares_and_not_while_it_measures(lock):
    seen = []

    def measure():
        seen.append((lock(fcntl.LOCK_SH), lock(fcntl.LOCK_EX)))
        return 1.0

    found = contest(dict(a=lambda: measure), rounds=2, warmup=0)
    assert found.values == dict(a=[1.0, 1.0]) and not found.left_out
    # Once to be ready, then in two rounds.
    assert seen == [(True, False), (False, False), (False, False)]
    assert lock(fcntl.LOCK_EX)


def test_rounds_are_left_out_while_another_prepares(lock):
    """For longer than the budget; what was measured before is kept."""
    with turns.preparing():
        found = contest(dict(a=lambda: lambda: 2.0), 3, Budget(0.5))
    assert found.values == dict(a=[2.0])
    assert found.left_out == dict(rounds='3 of 3')


def test_without_a_file_nothing_waits(monkeypatch):
    monkeypatch.delenv(turns.FILE, raising=False)
    with turns.measuring(), turns.measuring():
        assert not turns.are_taken()
