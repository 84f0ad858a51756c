"""Values from the text of a config, which is parsed and never executed."""

import ast
from typing import Any


def config_value(text: Any, *path: str) -> dict | None:
    """A dictionary in the text of a config.

    Args:
        text (Any): What mmengine keeps under ``meta['cfg']`` of a checkpoint.
        *path (str): Where it is, such as ``'model', 'backbone'``.

    Returns:
        dict | None: Its value; None if there is none that consists of
        literals and ``dict(...)``.
    """
    try:
        node = _top_level(ast.parse(text)).get(path[0])
        for name in path[1:]:
            node = _items(node).get(name)
        value = _literal(node)
    except (SyntaxError, TypeError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _top_level(tree: ast.Module) -> dict[str, ast.expr]:
    return {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _items(node: ast.expr | None) -> dict[Any, ast.expr]:
    """What ``dict(...)`` or ``{...}`` holds; of anything else nothing."""
    if isinstance(node, ast.Dict):
        return {
            _literal(key): value
            for key, value in zip(node.keys, node.values, strict=True)
        }
    if not isinstance(node, ast.Call):
        return {}
    if not isinstance(node.func, ast.Name) or node.func.id != 'dict':
        raise ValueError('a call of something else than dict')
    items: dict[Any, ast.expr] = {}
    for keyword in node.keywords:
        items.update(
            _items(keyword.value)
            if keyword.arg is None
            else {keyword.arg: keyword.value}
        )
    return items


def _literal(node: Any) -> Any:
    """``ast.literal_eval``, with ``dict(a=1)`` as a literal too."""
    if isinstance(node, (ast.Call, ast.Dict)):
        return {key: _literal(value) for key, value in _items(node).items()}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(item) for item in node.elts]
    return ast.literal_eval(node)
