"""What differs between the processes of a run, in one checkpoint.

Weights, optimizer and queues are the same everywhere, and the main process
saves them. Random number generators are not, nor are the running statistics
of plain BN, which every process keeps of its own images.
"""

import logging
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import (
    all_gather_object,
    broadcast_object_list,
    get_rank,
    get_world_size,
)
from mmengine.logging import print_log
from torch import Tensor, nn

from .random_state import capture_random_state, seed_random_state


def collect_rank_states(
    model: nn.Module, random_state: Mapping | None
) -> list[dict[str, Any]]:
    """Gather what only the processes themselves have; a collective call.

    Args:
        model (nn.Module): The model, not wrapped.
        random_state (Mapping, optional): State of the generators that
            training draws from; None for the present one.

    Returns:
        list[dict]: For each rank ``random`` and ``buffers``, those that
        differ from the main process', on the CPU.
    """
    if random_state is None:
        random_state = capture_random_state()
    mine = dict(random=random_state, buffers=_own_buffers(model))
    return all_gather_object(mine)


def restore_rank_state(
    model: nn.Module, states: Sequence[Mapping], seed: int, iteration: int
) -> dict[str, Any]:
    """Give this process what it had.

    Args:
        model (nn.Module): The model, not wrapped, with the weights of the
            checkpoint.
        states (Sequence[Mapping]): What :func:`collect_rank_states`
            returned, maybe for another number of processes.
        seed (int): Of the run.
        iteration (int): Steps done.

    Returns:
        dict: The state of its generators, to be restored where training
        goes on.
    """
    rank, processes = get_rank(), get_world_size()
    if len(states) != processes:
        print_log(
            f'The checkpoint was written by {len(states)} processes, now '
            f'there are {processes}: random numbers start anew, and all '
            'processes go on with the BN statistics of the first.',
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
    message = [digests]
    broadcast_object_list(message)
    return {
        name: value.detach().cpu().clone()
        for name, value in buffers.items()
        if digests[name] != message[0].get(name)
    }


def _digest(value: Tensor) -> int:
    rows = value.detach().cpu().contiguous().reshape(-1)
    return zlib.crc32(rows.view(torch.uint8).numpy())
