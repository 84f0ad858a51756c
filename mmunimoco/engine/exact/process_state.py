"""State that only the process itself has: random numbers, BN statistics.

Weights, optimizer and queues are the same in every process, and the main one
saves them. The state of the random number generators is not, nor are the
running statistics of plain BN, which each process keeps of its own images.
"""

import logging
import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dist import (
    all_gather_object,
    broadcast_object_list,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.logging import print_log
from torch import Tensor, nn


def capture_random_state(cuda: bool = True) -> dict[str, Any]:
    """Copy the state of Python's, NumPy's and torch's global generators.

    With ``cuda`` also that of the current CUDA device, if CUDA is in use. The
    state consists of numbers and CPU tensors, so ``torch.load`` reads it with
    ``weights_only=True``.
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
    """Put the generators into a captured state, from any device."""
    random.setstate(state['python'])
    name, keys, *rest = state['numpy']
    keys = keys.cpu().numpy().astype(np.uint32)
    np.random.set_state((name, keys, *rest))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


@contextmanager
def preserved_random_state(cuda: bool = True) -> Iterator[dict[str, Any]]:
    """Restore the generators when the context ends; yields their state."""
    state = capture_random_state(cuda)
    try:
        yield state
    finally:
        restore_random_state(state)


def seed_random_state(*entropy: int, cuda: bool = True) -> None:
    """Seed the generators by numbers >= 0; any change gives other streams."""
    words = np.random.SeedSequence(entropy).generate_state(6)
    random.seed(words[:2].tobytes())
    np.random.seed(words[2:4])
    seed = int(words[4]) << 32 | int(words[5])
    if cuda:
        torch.manual_seed(seed)
    else:
        # torch.manual_seed would queue work for CUDA in worker processes.
        torch.default_generator.manual_seed(seed)


def collect_process_states(
    model: nn.Module, random_state: Mapping | None
) -> list[dict[str, Any]]:
    """Gather the state of all processes; a collective call.

    Args:
        model (nn.Module): The model, not wrapped.
        random_state (Mapping, optional): State of the generators that
            training draws from; None for the present one.

    Returns:
        list[dict]: For each rank ``random``, and in ``buffers`` the buffers
        that differ from the main process', on the CPU.
    """
    if random_state is None:
        random_state = capture_random_state()
    mine = dict(random=random_state, buffers=_own_buffers(model))
    return all_gather_object(mine)


def restore_process_state(
    model: nn.Module, states: Sequence[Mapping], seed: int, iteration: int
) -> dict[str, Any]:
    """Restore the buffers of this process, and choose its random state.

    Args:
        model (nn.Module): The model, not wrapped, with the weights of the
            checkpoint.
        states (Sequence[Mapping]): From :func:`collect_process_states`, maybe
            for another number of processes.
        seed (int): Seed of the run.
        iteration (int): Steps done.

    Returns:
        dict: State of the generators, to restore where training resumes.
    """
    rank, processes = get_rank(), get_world_size()
    if len(states) != processes:
        print_log(
            f'The checkpoint was written by {len(states)} processes, now '
            f'there are {processes}: random numbers start anew, and all '
            'processes continue with the BN statistics of the first.',
            logger='current',
            level=logging.WARNING,
        )
        seed_random_state(seed, iteration, rank)
        return capture_random_state()
    buffers = dict(model.named_buffers())
    with torch.no_grad():
        for name, value in states[rank]['buffers'].items():
            buffers[name].copy_(value)
    return states[rank]['random']


def _own_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers in which this process differs from the main one."""
    if get_world_size() == 1:
        return {}
    saved = model.state_dict()
    buffers = {k: v for k, v in model.named_buffers() if k in saved}
    digests = {name: _digest(value) for name, value in buffers.items()}
    of_main = [digests]
    broadcast_object_list(of_main)
    return {
        name: value.detach().cpu().clone()
        for name, value in buffers.items()
        if digests[name] != of_main[0].get(name)
    }


def _digest(value: Tensor) -> int:
    rows = value.detach().cpu().contiguous().reshape(-1)
    return zlib.crc32(rows.view(torch.uint8).numpy())


def on_main_process(function: Callable[[], Any]) -> Any:
    """Call a function on the main process; a collective call.

    Args:
        function (Callable[[], Any]): Without arguments; its result must be
            picklable.

    Returns:
        Any: The main process's result, on every process.

    Raises:
        Exception: The main process's error, on every process.
    """
    answer: list[Any] = [None, None]
    if is_main_process():
        try:
            answer[0] = function()
        except Exception as error:
            answer[1] = error
    broadcast_object_list(answer)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]
