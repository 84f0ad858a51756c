"""What the meta of a checkpoint says about pre-training."""

import ast
from collections.abc import Mapping
from typing import Any

# As torchvision, timm's ResNets and MoCo normalise, in RGB and 0 ... 255.
IMAGENET = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)


def normalization_of(meta: Mapping) -> dict | None:
    """How images were normalised, as far as a checkpoint tells.

    ``meta['normalization']`` if a converter wrote it, else the data
    preprocessor in the text of the config, which is parsed, not executed.

    Args:
        meta (Mapping): The meta of a checkpoint.

    Returns:
        dict | None: ``mean`` and ``std``, three numbers each for images of
        0 ... 255, and ``to_rgb``: whether they are in the order RGB (else
        BGR). None if it is not known.
    """
    if meta.get('normalization') is not None:
        return dict(meta['normalization'])
    text = meta.get('cfg')
    # mmengine prefers the preprocessor inside the model.
    settings = (config_value(text, 'model') or {}).get('data_preprocessor')
    settings = settings or config_value(text, 'data_preprocessor') or {}
    mean, std = settings.get('mean'), settings.get('std')
    if not _three_numbers(mean) or not _three_numbers(std):
        return None
    to_rgb = settings.get('to_rgb') or settings.get('bgr_to_rgb')
    return dict(mean=list(mean), std=list(std), to_rgb=bool(to_rgb))


def _three_numbers(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 3
        and all(isinstance(number, (int, float)) for number in value)
    )


def config_value(text: Any, name: str) -> dict | None:
    """A dictionary of a config's text, without executing the text.

    Args:
        text (Any): What ``meta['cfg']`` holds.
        name (str): Top-level name, such as ``'model'``.

    Returns:
        dict | None: Its value; None if there is none that consists of
        literals and ``dict(...)``.
    """
    try:
        tree = ast.parse(text)
        for node in tree.body:
            if isinstance(node, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == name
                for target in node.targets
            ):
                value = _literal(node.value)
                return value if isinstance(value, dict) else None
    except (SyntaxError, TypeError, ValueError, RecursionError):
        return None
    return None


def _literal(node: ast.expr) -> Any:
    """``ast.literal_eval``, with ``dict(a=1)`` as a literal too."""
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id != 'dict':
            raise ValueError('a call of something else than dict')
        result: dict = {}
        for keyword in node.keywords:
            value = _literal(keyword.value)
            result.update(
                value if keyword.arg is None else {keyword.arg: value}
            )
        return result
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {_literal(key): _literal(value) for key, value in pairs}
    return ast.literal_eval(node)
