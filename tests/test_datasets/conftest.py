"""Fixtures of the dataset tests."""

import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    """Nested parts (the transforms of MultiView) build as in a Runner."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield
