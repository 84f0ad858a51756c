"""Find misspelt fields of a config before they are silently ignored."""

import ast
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from textwrap import dedent
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner
from mmpretrain.registry import (
    DATASETS,
    HOOKS,
    LOOPS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    TRANSFORMS,
    VISUALIZERS,
)
from torch import nn
from torch.utils.data import DataLoader

from mmunimoco.utils.config_errors import closest

from ..schedules import SCALED

# What mmengine reads besides the arguments of Runner.
_FIELDS = {
    *inspect.signature(Runner.__init__).parameters,
    *('activation_checkpointing', 'compile', 'custom_imports'),
    *('efficient_conv_bn_eval', 'find_unused_parameters', 'runner_type'),
    *('model_wrapper_cfg', 'sync_bn', 'tta_model', 'tta_pipeline'),
} - {'self'}
_TTA = {'tta_model', 'tta_pipeline'}  # test_pipeline is no misspelt one
# Other names are variables of the config, unless they are this similar to a
# field (a ratio of difflib).
_SIMILAR = 0.85
_LOADERS = {f'{split}_dataloader' for split in ('train', 'val', 'test')}
_LOADER = {
    *inspect.signature(DataLoader.__init__).parameters,
    *('num_batch_per_epoch', 'dataset'),
} - {'self'}
# Sub-configs by the name of their field.
_REGISTRIES = {
    'model': MODELS,
    'backbone': MODELS,
    'neck': MODELS,
    'head': MODELS,
    'loss': MODELS,
    'data_preprocessor': MODELS,
    'dataset': DATASETS,
    'datasets': DATASETS,
    'pipeline': TRANSFORMS,
    'transforms': TRANSFORMS,
    'custom_hooks': HOOKS,
    'train_cfg': LOOPS,
    'val_cfg': LOOPS,
    'test_cfg': LOOPS,
}
# Parts that are not built, and what mmengine reads of them.
_PLAIN = {
    'auto_scale_lr': {
        *('enable', 'base_batch_size'),
        SCALED.rpartition('.')[2],
    },
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'randomness': {'seed', 'diff_rank_seed', 'deterministic'},
}
# Parts that are built, and what is read before that.
_BUILT = {
    'optim_wrapper': (
        OPTIM_WRAPPERS,
        {'constructor', 'optimizer', 'paramwise_cfg'},
    ),
    'optim_wrapper.optimizer': (OPTIMIZERS, set()),
    'visualizer': (VISUALIZERS, set()),
}
_DEFAULT_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger')
_DEFAULT_HOOKS += ('param_scheduler', 'checkpoint', 'visualization')
# Read by mmengine before the class is built.
_OWN = {'type', '_scope_', '_delete_', 'priority', 'by_epoch'}


def check_fields(cfg: Config, changes: Mapping[str, Any]) -> None:
    """Refuse fields that nothing reads.

    That is a changed field that the config does not have, a name that
    resembles a field of mmengine's runner, and a variable of the file with the
    name of a field further down, such as ``label_ratio = 0.1``.

    Args:
        cfg (Config): A whole config, before ``changes``.
        changes (Mapping[str, Any]): Values by dotted names, as in
            ``--cfg-options``.

    Raises:
        ValueError: If there is one; names the field and the nearest known.
    """
    for name, value in changes.items():
        if isinstance(value, str) and value.startswith('dict('):
            raise ValueError(
                f'--cfg-options {name}={value}: the command line takes no '
                f'dict(...). Give its items: {name}.type=... {name}.x=...'
            )
        first = name.partition('.')[0]
        if first not in cfg and first not in _FIELDS:
            raise ValueError(
                f'--cfg-options {name}: the config has no field {first!r}'
                f'{_suggest(cfg, name)}'
            )
        copies = _copies(cfg, first)
        if copies:
            raise ValueError(
                f'--cfg-options {name}: {first} is a variable, whose value is '
                f'already in {" and ".join(copies[:3])}; change these'
            )
    tree = _parse(cfg)
    read = _read_names(tree)
    for name in sorted(set(cfg) - read):
        alike = get_close_matches(name, _FIELDS - _TTA, 1, _SIMILAR)
        if name not in _FIELDS and alike:
            raise ValueError(
                f'the config has a field {name!r}, which nothing reads; did '
                f'you mean {alike[0]}?'
            )
    _check_file(cfg, tree, read)


def check_merged_fields(cfg: Config) -> None:
    """Do what :func:`check_fields` does where only the result is known.

    For mmpretrain's own ``tools/train.py``. A script may add fields of its
    own, so an added one is refused only if it resembles another.

    Args:
        cfg (Config): A whole config, all changes merged.

    Raises:
        ValueError: If there is one; names the field and the nearest known.
    """
    if not _is_python(cfg.filename):
        return
    original = Config.fromfile(cfg.filename)
    added = set(cfg) - set(original) - _FIELDS
    misspelt = {x: None for x in added if _suggest(original, x)}
    check_fields(original, misspelt)


def _suggest(cfg: Config, name: str) -> str:
    """Fields with this name further down, or else with a similar name."""
    paths = [path for path, _ in _find(cfg, name)]
    if paths:
        return f'; did you mean {" or ".join(paths[:3])}?'
    return closest(name.partition('.')[0], {*cfg, *_FIELDS})


def _find(cfg: Config, name: str) -> list[tuple[str, Any]]:
    """Fields with this name below the top level, and their values."""
    return [
        (path, value)
        for path, value in walk('', cfg.to_dict())
        if path.endswith(f'.{name}')
    ]


def _is_python(path: str | None) -> bool:
    return path is not None and path.endswith('.py') and Path(path).is_file()


def _is_of_mmpretrain(cfg: Config) -> bool:
    return cfg.get('default_scope', 'mmpretrain') == 'mmpretrain'


def _parse(cfg: Config) -> ast.Module:
    """The file of a config; empty if there is none."""
    if not _is_python(cfg.filename):
        return ast.Module([], [])
    try:
        return ast.parse(Path(cfg.filename).read_text(encoding='utf-8'))
    except SyntaxError:  # mmengine replaces {{...}} first
        return ast.Module([], [])


def _read_names(tree: ast.Module) -> set[str]:
    """Variables that a file reads itself."""
    return {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


def _check_file(cfg: Config, tree: ast.Module, read: set[str]) -> None:
    """Refuse variables of the file that were meant to be a field.

    That is one with the name of a field further down that has another value,
    in a file that inherits another and does not read the variable. Some
    configs that mmdet and mmseg ship have such variables.
    """
    if not _is_of_mmpretrain(cfg):
        return
    assigned = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if '_base_' not in assigned:
        return
    for name in sorted(assigned - read - _FIELDS):
        for base in _bases(tree, Path(cfg.filename).parent):
            copies = _copies(base, name)
            if copies and base[name] != cfg.get(name):
                raise ValueError(
                    f'{cfg.filename}: {name} is a variable of its base, whose '
                    f'value is already in {" and ".join(copies[:3])}; change '
                    'these'
                )
        found = _find(cfg, name)
        if found and all(value != cfg.get(name) for _, value in found):
            raise ValueError(
                f'{cfg.filename}: {name} at the top level has no effect, '
                f'nothing reads it{_suggest(cfg, name)}'
            )


def _bases(tree: ast.Module, folder: Path) -> Iterator[Config]:
    """The configs that a file inherits from, if they are files."""
    for node in tree.body:
        target = getattr(node, 'targets', [None])[0]
        if getattr(target, 'id', None) != '_base_':
            continue
        try:
            names = ast.literal_eval(node.value)
        except ValueError:  # not written out
            return
        for name in [names] if isinstance(names, str) else names:
            if (folder / name).is_file():
                yield Config.fromfile(folder / name)


def _copies(cfg: Config, name: str) -> list[str]:
    """Fields that were given the value of a variable of the config."""
    value = cfg.get(name)
    if name in _FIELDS or value in (None, '', [], {}):
        return []
    is_telling = isinstance(value, str | list | tuple | Mapping)
    return [
        path
        for path, other in walk('', cfg.to_dict())
        if path.partition('.')[0] in _FIELDS
        and other == value
        and (is_telling or path.endswith(f'.{name}'))
    ]


def check_arguments(cfg: Config) -> None:
    """Refuse arguments that a part of a config does not take.

    Only of mmpretrain's configs, and parts whose class is known by the name
    of their field and takes no arbitrary keywords.

    Args:
        cfg (Config): A whole config, all changes merged.

    Raises:
        ValueError: If there is one; names the field and the nearest known.
    """
    if not _is_of_mmpretrain(cfg):
        return
    for path, node in walk('', cfg.to_dict()):
        names = [x for x in path.split('.') if not x.isdigit()]
        if not isinstance(node, Mapping) or not names:
            continue
        if path in _LOADERS or names[-1] == 'bank_dataloader':
            _refuse(path, node, 'a data loader', _LOADER)
        elif path in _PLAIN:
            for name in node.keys() - _PLAIN[path]:
                raise ValueError(
                    f'{path}.{name}: nothing reads it'
                    f'{closest(name, _PLAIN[path])}'
                )
        elif names[0] == 'default_hooks' and len(names) == 2:
            _check_default_hook(names[1], node)
        elif path in _BUILT and 'type' in node:
            _check_built(path, node, *_BUILT[path])
        elif names[-1] in _REGISTRIES and 'type' in node:
            _check_built(path, node, _REGISTRIES[names[-1]])


def _check_default_hook(name: str, node: Mapping) -> None:
    if 'type' not in node:
        raise ValueError(
            f'default_hooks.{name} has no type{closest(name, _DEFAULT_HOOKS)}'
        )
    _check_built(f'default_hooks.{name}', node, HOOKS)


def _check_built(
    path: str, node: Mapping, registry: Registry, more: Collection[str] = ()
) -> None:
    known = arguments_of(node['type'], registry)
    if known is not None:
        _refuse(path, node, str(node['type']), known.union(more))


def _refuse(path: str, node: Mapping, owner: str, known: set[str]) -> None:
    for name in node:
        if name in known | _OWN:
            continue
        text = (
            f'{path}: {owner} takes no argument {name!r}'
            f'{closest(name, known)}. It takes '
            f'{", ".join(sorted(known)) or "none"}.'
        )
        field = path.rpartition('.')[2]
        if not field.isdigit():  # lists inherit nothing
            text += (
                ' If the argument is inherited from a base config of another '
                f'type, replace the whole field: {field}=dict(_delete_=True, '
                'type=...); on the command line, '
                f'{path}._delete_=True {path}.type=...'
            )
        raise ValueError(text)


def arguments_of(kind: Any, registry: Registry) -> set[str] | None:
    """Arguments of a class; None if it is unknown or takes any keyword.

    Args:
        kind (str | type): The class, or its name in the registry.
        registry (Registry): The registry.

    Returns:
        set[str] | None: Names.
    """
    if isinstance(kind, str):
        kind = registry.get(kind)
    if not isinstance(kind, type):
        return None
    if kind.__init__ is nn.Module.__init__:  # refuses what it takes
        return set()
    known: set[str] = set()
    for base in kind.__mro__:
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        known |= {
            x.name
            for x in parameters
            if x.kind not in (x.VAR_KEYWORD, x.VAR_POSITIONAL)
        }
        if all(x.kind != x.VAR_KEYWORD for x in parameters):
            return known - {'self'}
        if not _hands_keywords_on(base.__init__):
            return None
    return None


def _hands_keywords_on(init: Callable) -> bool:
    """Whether an ``__init__`` gives its keywords to that of the next class.

    Others go elsewhere: mmpretrain's ``TIMMBackbone`` gives them to timm.
    """
    try:
        tree = ast.parse(dedent(inspect.getsource(init)))
    except (OSError, TypeError):
        return False
    return any(
        keyword.arg is None
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, 'attr', None) == '__init__'
        for keyword in node.keywords
    )


def walk(path: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Yield all values in nested dictionaries and lists by dotted names."""
    if isinstance(node, list | tuple):
        node = dict(enumerate(node))
    for key, value in node.items() if isinstance(node, Mapping) else ():
        inner = f'{path}.{key}' if path else str(key)
        yield inner, value
        yield from walk(inner, value)
