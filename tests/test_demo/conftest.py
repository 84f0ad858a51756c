"""A finished demo, small enough for tests."""

from pathlib import Path

import pytest
from demo_helpers import run_captured, write_tiny_configs

from demo.settings import DemoSettings


@pytest.fixture(scope='session')
def tiny_configs(tmp_path_factory) -> Path:
    return write_tiny_configs(tmp_path_factory.mktemp('tiny_configs'))


@pytest.fixture(scope='session')
def finished_demo(tmp_path_factory, tiny_configs) -> tuple[DemoSettings, str]:
    """A finished demo and its output. Not to be changed by tests."""
    work_dir = tmp_path_factory.mktemp('demo')
    settings = DemoSettings(work_dir, config_dir=tiny_configs)
    status, output = run_captured(settings)
    assert status == 0
    return settings, output
