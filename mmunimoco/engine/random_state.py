"""The random number generators of a process: kept, restored, seeded."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def capture_random_state(cuda: bool = True) -> dict[str, Any]:
    """Copy the state of Python's, NumPy's and torch's global generators.

    Args:
        cuda (bool): Whether the generator of the current CUDA device is
            wanted too, where CUDA is in use. Defaults to True.

    Returns:
        dict: Tuples of numbers and CPU tensors, which every checkpoint may
        hold.
    """
    name, keys, *rest = np.random.get_state(legacy=True)
    state = dict(
        python=random.getstate(),
        numpy=(name, torch.from_numpy(keys.astype(np.int64)), *rest),
        torch=torch.get_rng_state(),
    )
    if cuda and torch.cuda.is_available() and torch.cuda.is_initialized():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put generators into a captured state.

    Args:
        state (Mapping): What :func:`capture_random_state` returned; its
            tensors may have been moved to another device since.
    """
    random.setstate(state['python'])
    name, keys, *rest = state['numpy']
    keys = keys.cpu().numpy().astype(np.uint32)
    np.random.set_state((name, keys, *rest))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


@contextmanager
def preserved_random_state(cuda: bool = True) -> Iterator[dict[str, Any]]:
    """Undo what happens to the generators while the context lasts.

    Args:
        cuda (bool): As in :func:`capture_random_state`.

    Yields:
        dict: The state that is restored at the end.
    """
    state = capture_random_state(cuda)
    try:
        yield state
    finally:
        restore_random_state(state)


def seed_random_state(*entropy: int, cuda: bool = True) -> None:
    """Seed the global generators from several numbers.

    Args:
        *entropy (int): Numbers >= 0; any other list gives other, independent
            random numbers.
        cuda (bool): Whether CUDA's generators are seeded too. Defaults to
            True.
    """
    words = np.random.SeedSequence(entropy).generate_state(6)
    random.seed(words[:2].tobytes())
    np.random.seed(words[2:4])
    seed = int(words[4]) << 32 | int(words[5])
    if cuda:
        torch.manual_seed(seed)
    else:
        # torch.manual_seed would queue work for CUDA in processes without.
        torch.default_generator.manual_seed(seed)
