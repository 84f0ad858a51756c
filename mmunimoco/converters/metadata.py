"""What the meta of a checkpoint says about pre-training."""

import ast
from collections.abc import Mapping
from typing import Any

from mmunimoco.utils.normalization import normalization_of_checkpoint

# As torchvision, timm's ResNets and MoCo normalise, in RGB and 0 ... 255.
IMAGENET = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)


def normalization_of(meta: Mapping) -> dict | None:
    """How images were normalised, as far as a checkpoint tells.

    Args:
        meta (Mapping): The meta of a checkpoint.

    Returns:
        dict | None: In the form of ``meta['normalization']``: ``mean`` and
        ``std``, three numbers each for images of 0 ... 255, and ``to_rgb``:
        whether they are in the order RGB (else BGR). None if not known.
    """
    known = normalization_of_checkpoint(dict(meta=meta))
    if known is None:
        return None
    mean, std = list(known.mean), list(known.std)
    return dict(mean=mean, std=std, to_rgb=known.to_rgb)


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
