"""Who handles SIGTERM, and when."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace

import pytest
from ddp_helpers import run_ddp
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop
from mmpretrain.registry import LOOPS
from noise_runs import noise_runner

from mmunimoco.engine import ExactCheckpointHook, PreemptionHook
from mmunimoco.engine.exact.loader import WorkerStart
from mmunimoco.utils.safe_load import read_checkpoint


@pytest.fixture(autouse=True)
def default_handler():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def _listening() -> PreemptionHook:
    hook = PreemptionHook()
    hook.before_train(SimpleNamespace(hooks=[ExactCheckpointHook()]))
    return hook


def test_forked_processes_end_on_sigterm():
    """Otherwise a metric would wait forever for its pool."""
    _listening()
    process = get_context('fork').Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    process.join(20)
    code = process.exitcode
    process.kill()
    assert code == -signal.SIGTERM


def test_handler_of_a_failed_run_is_replaced():
    failed, following = _listening(), _listening()
    signal.raise_signal(signal.SIGTERM)
    assert following._requested and not failed._requested


def test_handler_of_a_program_is_kept():
    seen = []
    signal.signal(signal.SIGTERM, lambda *_: seen.append(True))
    hook = _listening()
    signal.raise_signal(signal.SIGTERM)
    assert seen == [True] and not hook._requested
    hook.after_train(None)
    signal.raise_signal(signal.SIGTERM)
    assert seen == [True, True]


def test_no_handler_is_left():
    hook = _listening()
    hook.after_train(None)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_validation_is_left_only_if_the_last_step_is_saved():
    hook, checkpoints = PreemptionHook(), ExactCheckpointHook()
    hook.before_train(SimpleNamespace(hooks=[checkpoints]))
    runner, checkpoints.saved_iter = SimpleNamespace(iter=5), 5
    hook.before_val(runner)
    with pytest.raises(SystemExit, match='75'):
        signal.raise_signal(signal.SIGTERM)
    hook.after_val(runner)
    signal.raise_signal(signal.SIGTERM)  # the next step has to be saved
    runner.iter = 6
    hook.before_val(runner)
    signal.raise_signal(signal.SIGTERM)
    runner.iter = checkpoints.saved_iter = 7
    with pytest.raises(SystemExit, match='75'):
        hook.before_val(runner)


class _Terminated(Hook):
    """Gets SIGTERM before the third step."""

    def before_train_iter(self, runner, *_, **__):
        if runner.iter == 2:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(('count', 'saved'), [(1, 3), (2, 4), (4, 4)])
def test_saved_after_a_step_of_the_optimizer(tmp_path, count, saved):
    """Accumulated gradients would not be in the checkpoint."""
    optimizer = dict(type='SGD', lr=0.1)
    runner = noise_runner(
        *(tmp_path, (), [dict(type='PreemptionHook'), _Terminated()]),
        train_cfg=dict(type='ExactEpochLoop', max_epochs=1),
        optim_wrapper=dict(optimizer=optimizer, accumulative_counts=count),
    )
    with pytest.raises(SystemExit, match='75'):
        runner.train()
    assert [x.name for x in tmp_path.glob('*.pth')] == [f'iter_{saved}.pth']


@LOOPS.register_module()
class TerminatedValidation(BaseLoop):
    """Gets SIGTERM; notes what was trained when it went on."""

    def __init__(self, runner, dataloader, evaluator):
        super().__init__(runner, dataloader)
        self.went_on = []

    def run(self):
        self.runner.call_hook('before_val')
        signal.raise_signal(signal.SIGTERM)
        self.went_on.append(self.runner.iter)


def test_a_validation_that_is_repeated_is_left_at_once(tmp_path):
    """The checkpoint that was resumed is all that is needed."""
    loop = dict(type='ExactIterLoop', max_iters=3, val_interval=3)
    checkpoint = dict(type='ExactCheckpointHook', by_epoch=False, interval=3)
    options = dict(
        train_cfg=loop,
        default_hooks=dict(checkpoint=checkpoint),
        val_cfg=dict(type='TerminatedValidation'),
        val_dataloader=dict(
            dataset=range(2),
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        val_evaluator=[],
    )
    start = dict(load_from=str(tmp_path / 'iter_3.pth'), resume=True)
    for changes in ({}, start):
        hooks = [dict(type='PreemptionHook')]
        runner = noise_runner(tmp_path, (), hooks, **options, **changes)
        with pytest.raises(SystemExit, match='75'):
            runner.train()
        assert runner.val_loop.went_on == [] and runner.iter == 3


def _train_on_rank(rank, world_size, folder):
    hooks = [dict(type='PreemptionHook', exit_code=76)]
    hooks += [_Terminated()] * (rank == 1)
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None)
    runner = noise_runner(
        folder,
        hooks=hooks,
        train_cfg=dict(type='ExactEpochLoop', max_epochs=1),
        launcher='pytorch',
        cfg=dict(model_wrapper_cfg=wrapper),
    )
    try:
        runner.train()
    except SystemExit as stop:
        return stop.code, runner.iter


def test_a_signal_to_one_process_stops_all(tmp_path):
    """One step later, in the same one."""
    folder = tmp_path / 'run'
    ranks = run_ddp(_train_on_rank, 2, tmp_path, folder)
    assert ranks == [(76, 3), (76, 3)]
    assert [x.name for x in folder.glob('*.pth')] == ['iter_4.pth']


def _load(sender):
    seen = []
    start = WorkerStart(seen.append)
    start(3)
    with start.training():
        signal.raise_signal(signal.SIGTERM)
    sender.send(seen)
    signal.raise_signal(signal.SIGTERM)
    time.sleep(60)


def test_workers_outlive_the_signal_as_long_as_steps_need_them():
    context = get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=_load, args=(sender,))
    worker.start()
    assert receiver.poll(20) and receiver.recv() == [3]
    worker.join(20)
    code = worker.exitcode
    worker.kill()
    assert code == 0


@pytest.mark.parametrize('status', [0, 256])
def test_status_out_of_range(status):
    with pytest.raises(ValueError, match='exit_code'):
        PreemptionHook(exit_code=status)


def test_without_the_checkpoint_hook_nothing_is_handled(log):
    hook = PreemptionHook()
    hook.before_train(SimpleNamespace(hooks=[]))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    hook.before_val(None)
    hook.after_train_iter(None)
    assert 'nothing is saved on SIGTERM' in log.text


def test_runners_in_threads_train_side_by_side(tmp_path):
    """Signals are for the main thread; these runs just do not listen."""
    hooks = [dict(type='PreemptionHook'), dict(type='PreflightHook')]

    def train(name):
        noise_runner(tmp_path / name, hooks=hooks).train()
        return read_checkpoint(str(tmp_path / name / 'epoch_1.pth'))

    with ThreadPoolExecutor(2) as pool:
        states = [x['state_dict'] for x in pool.map(train, 'ab')]
    assert all(int(state['head.queue_ptr']) == 48 % 32 for state in states)
