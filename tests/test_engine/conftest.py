"""Fixtures of the engine's tests."""

import logging

import pytest
from mmengine.logging import MMLogger


@pytest.fixture
def log(caplog):
    """Messages of mmengine's current logger."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture
def log_of():
    """A function that reads the log files of a run."""

    def read(work_dir):
        paths = sorted(work_dir.glob('*/*.log'))
        return ''.join(path.read_text() for path in paths)

    return read
