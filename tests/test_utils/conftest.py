import os

import pytest
import torch
from foreign_checkpoints import RunsCode


@pytest.fixture
def mark(tmp_path):
    """A file that exists if a checkpoint's content was executed."""
    return tmp_path / 'mark'


@pytest.fixture
def hostile(tmp_path, mark):
    """A checkpoint that creates ``mark`` if its content is executed."""
    path = tmp_path / 'hostile.pth'
    code = RunsCode(os.system, f'touch {mark}')
    torch.save({'state_dict': {}, 'meta': code}, path)
    return path
