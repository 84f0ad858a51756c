"""Read values from the text of a config without executing it."""

import ast
import re
from collections.abc import Mapping
from typing import Any

# Modules have names in capitals there; functions are not for a config.
_SCOPE = re.compile(r'^(mmengine|mmcv|mmpretrain|mmdet|mmseg)\.(?=[A-Z])')
_UNREADABLE = (
    *(LookupError, MemoryError, RecursionError, SyntaxError, TypeError),
    ValueError,
)


def config_literal(text: Any, *path: str) -> Any:
    """Look up a value in the text of a config.

    Args:
        text (Any): The config in ``meta['cfg']`` of an mmengine checkpoint.
        *path (str): Keys that lead to it, such as ``'model', 'backbone'``.

    Returns:
        Any: The value; None if there is none, or if it contains anything but
        literals and ``dict(...)``.
    """
    try:
        node = _top_level(ast.parse(text))
        for name in path:
            node = _item(node, name)
        return ast.literal_eval(node)
    except _UNREADABLE:
        return None


def config_value(text: Any, *path: str) -> dict | None:
    """As :func:`config_literal`, but None for all that is no dictionary."""
    value = config_literal(text, *path)
    return value if isinstance(value, dict) else None


def _top_level(tree: ast.Module) -> ast.Dict:
    """All assignments to names, as one dictionary."""
    keys, values = [], []
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    keys.append(ast.Constant(target.id))
                    values.append(_DictCalls().visit(node.value))
    return ast.Dict(keys, values)


class _DictCalls(ast.NodeTransformer):
    """Turn ``dict(a=1, **{'b': 2})`` into ``{'a': 1, 'b': 2}``."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = getattr(node.func, 'id', None)
        if name != 'dict' or node.args:
            return node  # no literal, so its value is not read
        items = ast.Dict([], [])
        for keyword in node.keywords:
            if keyword.arg is not None:
                items.keys.append(ast.Constant(keyword.arg))
                items.values.append(keyword.value)
            elif isinstance(keyword.value, ast.Dict):
                items.keys += keyword.value.keys
                items.values += keyword.value.values
            else:
                return node
        return items


def _item(node: ast.AST, name: str) -> ast.AST:
    if not isinstance(node, ast.Dict):
        raise TypeError('not a dictionary')
    # The last one counts, as in Python.
    found = [
        value
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == name
    ]
    return found[-1]


def check_types(config: Any) -> None:
    """Refuse what a registry would import: a file may be anybody's.

    Args:
        config (Any): A config, or a part of one, that a checkpoint bears.

    Raises:
        ValueError: If a ``type`` in it is not the name of a registered
            module, with or without a scope.
    """
    if isinstance(config, Mapping):
        kind = config.get('type', '')
        # "scope.Module"; anything else with a dot is a path to import.
        name = _SCOPE.sub('', kind) if isinstance(kind, str) else ''
        if kind != '' and not name.isidentifier():
            raise ValueError(
                f'the config in the checkpoint names {kind!r}, which is no '
                'registered module of mmpretrain'
            )
        config = config.values()
    elif not isinstance(config, list | tuple):
        return
    for value in config:
        check_types(value)
