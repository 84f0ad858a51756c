"""What a soak needs of tools/train.py, without a model: started in no time.

Run as tools/train.py of a checkout of its own. What it does wrong is named by
the variable FAULT.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

FAULT = os.environ.get('FAULT', '')
STEPS_PER_EPOCH = 60
PADDING = 'x' * 200_000


def main():
    config = Path(sys.argv[1]).read_text()
    work_dir = Path(sys.argv[3])
    interval = int(re.search(r'\binterval=(\d+)', config)[1])
    total = STEPS_PER_EPOCH * int(re.search(r'max_epochs=(\d+)', config)[1])
    state = dict(step=0, value=1)
    if '--resume' in sys.argv:
        state = load(work_dir) or state
        for part in work_dir.glob('.*.part'):
            part.unlink()
    is_asked = []
    signal.signal(signal.SIGTERM, lambda *_: is_asked.append(True))
    worker = os.fork()
    if not worker:
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(0.05)
        os._exit(0)
    if FAULT == 'fails':
        sys.exit('no config')
    if state['step'] and FAULT == 'hangs':
        time.sleep(3600)
    path = os.environ['MMUNIMOCO_SOAK_STEPS']
    steps = open(path, 'w', buffering=1)  # noqa: SIM115
    print(state['step'], total, file=steps)
    if state['step'] and FAULT == 'orphan':
        sleep = ['sleep', '3600']
        subprocess.Popen(sleep, stdout=subprocess.DEVNULL)
    while state['step'] < total:
        time.sleep(0.01)
        if os.waitpid(worker, os.WNOHANG)[0]:
            sys.exit('a worker is dead')
        state['step'] += 1
        state['value'] = state['value'] * 7919 % 1_000_003
        print(state['step'], float(state['value']).hex(), file=steps)
        if is_asked and FAULT != 'deaf':
            save(work_dir, state)
            sys.exit(75)
        if state['step'] % interval == 0 or state['step'] == total:
            save(work_dir, state)
    if FAULT == 'part':
        (work_dir / '.iter_1.pth.1.part').touch()
    print('skip_broken: 2 broken files, of at most 2')
    os.kill(worker, signal.SIGKILL)


def save(work_dir, state):
    path = work_dir / f'iter_{state["step"]}.pth'
    part = path.with_name(f'.{path.name}.1.part')
    if FAULT == 'rare' and state['step'] % 60:
        return
    try:
        part.write_text(json.dumps(dict(state, padding=PADDING)))
        time.sleep(0.05)  # seen by those who look
        part.rename(path)
    except OSError:
        part.unlink()
        print(f'{path.name} could not be written', flush=True)
        return
    (work_dir / 'last_checkpoint').write_text(str(path))
    paths = sorted(work_dir.glob('iter_*.pth'), key=os.path.getmtime)
    for old in paths[:-3]:
        old.unlink()


def load(work_dir):
    """The latest whole file; says which, and why not another."""
    names = sorted(work_dir.glob('iter_*.pth'), key=os.path.getmtime)
    damaged = ''
    for path in reversed(names):
        try:
            state = json.loads(path.read_bytes())
        except ValueError:
            damaged = f'{path} is damaged'
            continue
        if state.pop('padding') != PADDING:
            damaged = f'{path} is damaged'
            continue
        if damaged:
            print(
                f'Resuming from {path}, the newest checkpoint that can be '
                f'read: {damaged}'
            )
        if FAULT != 'silent':
            print(f'Load checkpoint from {path}')
            print(f'resumed epoch: 0, iter: {state["step"]}', flush=True)
        if FAULT == 'state':
            state['value'] += 1
        return state
    print('Auto resumed from the latest checkpoint None', flush=True)


if __name__ == '__main__':
    main()
