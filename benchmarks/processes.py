"""Run a function on several gloo processes."""

import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes


def run_processes(
    function: Callable[..., Any], world_size: int, *args: Any
) -> list[Any]:
    """Call a function in a gloo group of single-threaded processes.

    Args:
        function (Callable): On the top level of a module.
        world_size (int): Number of processes.
        *args: Picklable arguments of the function.

    Returns:
        list: The result of each rank.

    Raises:
        torch.multiprocessing.ProcessRaisedException: If a rank raised.
    """
    # Processes are forked from a server that has imported this.
    multiprocessing.set_forkserver_preload([function.__module__])
    with TemporaryDirectory() as folder:
        start_processes(
            _run_rank,
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


def _run_rank(
    rank: int, function: Callable, world_size: int, folder: str, args: tuple
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/store',
        rank=rank,
        world_size=world_size,
    )
    _result(folder, rank).write_bytes(pickle.dumps(function(*args)))
    # Not destroyed: old releases of torch now and then deadlock in that.
    dist.barrier()
