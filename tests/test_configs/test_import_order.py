"""Configs that import something load with any release of mmengine."""

import ast
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).parents[2]
PATHS = [str(path) for path in sorted(ROOT.glob('configs/**/*.py'))]


def first_of(kind, tree):
    """Line of the first statement of a kind, or None."""
    lines = [node.lineno for node in tree.body if isinstance(node, kind)]
    return min(lines, default=None)


def base_line(tree):
    """Line where `_base_` is set, or None."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_':
            return node.lineno
    return None


def test_base_stands_above_the_imports():
    importing = 0
    for path in PATHS:
        tree = ast.parse(Path(path).read_text())
        imports = first_of((ast.Import, ast.ImportFrom), tree)
        if imports is not None:
            importing += 1
            assert (base_line(tree) or imports) < imports, path
    assert importing


@pytest.mark.parametrize('header', ['_base_ = []\n', ''])
def test_what_comes_first_decides_the_syntax(tmp_path, monkeypatch, header):
    # As in most environments with mmengine 0.10.7.
    monkeypatch.setattr(
        'mmengine.config.config._is_builtin_module', lambda name: False
    )
    path = tmp_path / 'config.py'
    path.write_text(header + "import os\nkey = os.path.join('a', 'b')\n")
    assert Config._is_lazy_import(str(path)) == (header == '')
    if header:
        assert Config.fromfile(path).key == 'a/b'
