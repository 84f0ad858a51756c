"""State that hooks keep themselves, which mmengine's checkpoints lack."""

import logging
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import Tensor

from mmunimoco.utils.checkpoint import shorten

# Hooks whose state is in a checkpoint, needs none, or starts anew harmlessly.
_KNOWN = ('mmengine.hooks.', 'mmpretrain.engine.', 'mmunimoco.engine.')
# Of these, hooks of mmengine and mmpretrain with state that matters:
# attributes to carry, and those to warn of.
_CARRIED = {'EarlyStoppingHook': ('best_score', 'wait_count')}
_WARNED = ('SwAVHook',)
_PLAIN = (bool, int, float, str, bytes)


class HookStates:
    """State of the hooks of a run.

    Carried are hooks with the methods ``state_dict()`` and
    ``load_state_dict(state)``, and mmengine's ``EarlyStoppingHook``. Of others
    outside the known packages, the attributes that change are reported.

    Args:
        hooks (Sequence[Hook]): The hooks, before the first step.
    """

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self.hooks = dict(_named(hooks))
        self._before = {
            name: _attributes(hook)
            for name, hook in self.hooks.items()
            if _is_unknown(hook)
        }
        self._has_warned = False

    def collect(self) -> dict[str, Any]:
        """State for a checkpoint; warns once of what is not in it.

        Returns:
            dict: ``states`` of the hooks that are carried, by name, and
            ``changed``, the attributes of other hooks that are not.

        Raises:
            TypeError: If a hook's state holds more than plain values.
        """
        states = {}
        for name, hook in self.hooks.items():
            if _has_state(hook):
                states[name] = _checked(name, hook.state_dict())
            elif type(hook).__name__ in _CARRIED:
                names = _CARRIED[type(hook).__name__]
                states[name] = {each: getattr(hook, each) for each in names}
        changed = [
            f'{name}.{attribute}'
            for name, before in self._before.items()
            for attribute, value in _attributes(self.hooks[name]).items()
            if before.get(attribute) != value
        ]
        if changed and not self._has_warned:
            self._has_warned = True
            _warn(
                'Hooks have changed values that are not in the checkpoint, so '
                f'a resumed run may differ: {shorten(changed)}. Methods '
                'state_dict and load_state_dict of a hook carry them.'
            )
        return dict(states=states, changed=changed)

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Give the hooks of this run what :meth:`collect` returned."""
        for name, state in saved.get('states', {}).items():
            hook = self.hooks.get(name)
            if hook is not None and _has_state(hook):
                hook.load_state_dict(state)
            elif hook is not None:
                vars(hook).update(state)
        if saved.get('changed'):
            _warn(
                'The checkpoint does not hold these values of hooks, which '
                f'start anew: {shorten(saved["changed"])}'
            )


def _named(hooks: Sequence[Hook]) -> Iterable[tuple[str, Hook]]:
    """Pairs of a name and a hook; a second one of a class has a number."""
    seen = Counter()
    for hook in hooks:
        name = type(hook).__name__
        seen[name] += 1
        yield name + (f'_{seen[name]}' if seen[name] > 1 else ''), hook


def _has_state(hook: Hook) -> bool:
    return hasattr(hook, 'state_dict') and hasattr(hook, 'load_state_dict')


def _is_unknown(hook: Hook) -> bool:
    kind = type(hook)
    if _has_state(hook) or kind.__name__ in _CARRIED:
        return False
    known = f'{kind.__module__}.'.startswith(_KNOWN)
    return not known or kind.__name__ in _WARNED


def _checked(name: str, state: Any) -> Any:
    """A state that every way of reading checkpoints accepts."""
    if isinstance(state, Mapping):
        parts = [*state.keys(), *state.values()]
    elif isinstance(state, (list, tuple)):
        parts = state
    elif state is None or isinstance(state, (*_PLAIN, Tensor)):
        parts = ()
    else:
        raise TypeError(
            f'{name}.state_dict() holds a {type(state).__name__}, which safe '
            'loading of the checkpoint would refuse: use numbers, strings, '
            'tensors, lists and dicts'
        )
    for part in parts:
        _checked(name, part)
    return state


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)


def _attributes(hook: Hook) -> dict[str, Any]:
    """Plain values of a hook; what is built of others is left out."""
    marks = {name: _mark(value) for name, value in vars(hook).items()}
    return {name: mark for name, mark in marks.items() if mark is not None}


def _mark(value: Any) -> Any:
    """A small value that differs if a plain value differs; None if not."""
    if value is None or isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, Tensor):
        value = value.detach().cpu().float().numpy()
    if isinstance(value, (np.ndarray, np.generic)):
        return zlib.crc32(np.ascontiguousarray(value).tobytes())
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, (list, tuple, set, deque)):
        return [_mark(each) for each in value]
    return None
