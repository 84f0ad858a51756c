"""Fixtures of the engine's tests."""

import pytest


@pytest.fixture
def log_of():
    """A function that reads the log files of a run."""

    def read(work_dir):
        paths = sorted(work_dir.glob('*/*.log'))
        return ''.join(path.read_text() for path in paths)

    return read
