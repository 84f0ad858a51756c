"""Run a function on several gloo processes."""

import multiprocessing
import pickle
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

# Forked from a server that has imported these once and runs no threads.
PRELOAD = ['torch', 'mmpretrain.models', 'mmunimoco']
TIMEOUT = timedelta(minutes=5)


def run_processes(
    function: Callable[..., Any], world_size: int, *args: Any
) -> list[Any]:
    """Call a function in a group of gloo processes of one thread each.

    Args:
        function (Callable): On the top level of a module.
        world_size (int): Number of processes.
        *args: For the function; like its result, what pickle takes.

    Returns:
        list: Result of each rank.

    Raises:
        torch.multiprocessing.ProcessRaisedException: If one raised.
    """
    multiprocessing.set_forkserver_preload(PRELOAD)
    with TemporaryDirectory() as folder:
        start_processes(
            _body,
            (function, world_size, folder, args),
            nprocs=world_size,
            start_method='forkserver',
        )
        return [
            pickle.loads(_result(folder, rank).read_bytes())
            for rank in range(world_size)
        ]


def _result(folder: str, rank: int) -> Path:
    return Path(folder) / f'{rank}.pkl'


def _body(
    rank: int, function: Callable, world_size: int, folder: str, args: tuple
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/store',
        rank=rank,
        world_size=world_size,
        timeout=TIMEOUT,
    )
    result = function(*args)
    _result(folder, rank).write_bytes(pickle.dumps(result))
    # The group ends with its process. To destroy it hangs now and then in old
    # releases of torch: it waits for threads that wait for Python's lock.
    dist.barrier()
