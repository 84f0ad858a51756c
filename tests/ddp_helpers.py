"""Run a test function in several gloo processes and collect the results.

In a test module::

    from ddp_helpers import run_ddp

    def _sum_of_ranks(rank, world_size, extra):
        x = torch.tensor(rank + extra)
        dist.all_reduce(x)
        return x

    def test_sum(tmp_path):
        assert run_ddp(_sum_of_ranks, 2, tmp_path, 10) == [21, 21]
"""

import importlib.util
import inspect
import os
import pickle
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

# Processes are forked from a server that has imported these modules and has no
# threads: as fast as fork, as safe as spawn.
PRELOAD = ['mmpretrain.apis', 'mmpretrain.models', 'mmunimoco', 'frozen_heap']


def run_ddp(
    function: Callable,
    world_size: int,
    tmp_path: Path,
    *args: Any,
    timeout: float = 300,
) -> list[Any]:
    """Call ``function(rank, world_size, *args)`` in a gloo group.

    Args:
        function (Callable): A top-level function of a test module. It runs
            with an initialised default process group, one torch thread and
            RANK, WORLD_SIZE and LOCAL_RANK set.
        world_size (int): Number of processes, at least 1.
        tmp_path (Path): Folder for the rendezvous file.
        *args: Picklable arguments.
        timeout (float): Seconds after which the processes are killed.

    Returns:
        list: Results in rank order, tensors by value.

    Raises:
        RuntimeError: If a rank raised (with its traceback) or died.
        TimeoutError: If a rank did not finish in time.
    """
    context = get_context('forkserver')
    context.set_forkserver_preload(PRELOAD)
    module = inspect.getmodule(function)
    job = {
        'module': (module.__name__, inspect.getsourcefile(function)),
        'function': function.__name__,
        'args': pickle.dumps(args),
        'store': str(Path(tmp_path) / f'store_{uuid.uuid4().hex}'),
        'world_size': world_size,
        'timeout': timeout,
    }
    processes, pipes = [], []
    for rank in range(world_size):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_run_rank, args=(job, rank, sender), daemon=True
        )
        process.start()
        sender.close()
        processes.append(process)
        pipes.append(receiver)
    grace = 0
    try:
        results = _collect(pipes, time.monotonic() + timeout)
        grace = 10
    finally:
        for process in processes:
            process.join(grace)
            if process.is_alive():
                process.kill()
                process.join()
    return results


def _collect(pipes: list, deadline: float) -> list[Any]:
    """Wait for all ranks, or for the first failure."""
    answers, failures = {}, []
    while len(answers) < len(pipes) and not failures:
        waiting = [p for rank, p in enumerate(pipes) if rank not in answers]
        ready = connection.wait(waiting, max(0, deadline - time.monotonic()))
        if not ready:
            late = [r for r in range(len(pipes)) if r not in answers]
            raise TimeoutError(f'Ranks {late} did not finish in time.')
        for pipe in ready:
            rank = pipes.index(pipe)
            ok, answers[rank] = _receive(pipe)
            if not ok:
                failures.append(f'Rank {rank} {answers[rank]}')
    if failures:
        raise RuntimeError('\n'.join(failures))
    return [answers[rank] for rank in range(len(pipes))]


def _receive(pipe: Any) -> tuple[bool, Any]:
    try:
        return pickle.loads(pipe.recv_bytes())
    except EOFError:
        return False, 'died without a result.'


def _run_rank(job: dict, rank: int, sender: Any) -> None:
    """Run one process: sends (ok, result or traceback)."""
    try:
        message = pickle.dumps((True, _call(job, rank)))
    except BaseException:  # raised again by the parent
        answer = f'raised:\n{traceback.format_exc()}'
        message = pickle.dumps((False, answer))
    sender.send_bytes(message)


def _call(job: dict, rank: int) -> Any:
    # Importing this module does not need torch.
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    world_size = job['world_size']
    for name, value in dict(
        RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world_size, OMP_NUM_THREADS=1
    ).items():
        os.environ[name] = str(value)
    module = _load_module(*job['module'])
    args = pickle.loads(job['args'])
    dist.init_process_group(
        'gloo',
        init_method=f'file://{job["store"]}',
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=job['timeout']),
    )
    result = getattr(module, job['function'])(rank, world_size, *args)
    # The group ends with its process. Destroying it sometimes hangs in old
    # releases of torch, waiting for threads that wait for the GIL.
    dist.barrier()
    return result


def _load_module(name: str, path: str) -> Any:
    """Load a test module under the name pytest gave it.

    The names of pytest's importlib mode cannot be imported.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
