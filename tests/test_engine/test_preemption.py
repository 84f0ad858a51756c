"""Who handles SIGTERM, and when."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace

import pytest
from noise_runs import noise_runner

from mmunimoco.engine import ExactCheckpointHook, PreemptionHook
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
