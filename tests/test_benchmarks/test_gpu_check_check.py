"""Parts of the check: statuses, limits, and the report about them."""

import io
import json
import os
import signal
import sys
import time

import pytest
from rich.console import Console

from benchmarks.gpu_check.check import run_check
from benchmarks.gpu_check.part import Outcome, Part, run_part

HEADER = dict(device='cpu', git=dict(commit=None), versions={}, machine={})


def make_part(code, name='part', limit=30, read=None, **kwargs):
    """A part that runs Python code, with its folder as ``argv[1]``."""
    return Part(
        name,
        f'title of {name}',
        limit,
        command=lambda folder: [sys.executable, '-c', code, str(folder)],
        read=read or (lambda folder: Outcome(dict(x=1), [], 'well')),
        **kwargs,
    )


def test_a_part_that_passes(tmp_path):
    part = make_part('import os; print(os.environ["A"])', env=dict(A='b'))
    result = run_part(part, tmp_path / 'part', tmp_path)
    assert (result.status, result.reason) == ('passed', '')
    assert (result.results, result.summary) == (dict(x=1), 'well')
    assert result.log_tail == []
    assert (tmp_path / 'part' / 'log.txt').read_text() == 'b\n'


def test_a_failing_command_fails_and_keeps_results(tmp_path):
    part = make_part('print("last words"); raise SystemExit(3)')
    result = run_part(part, tmp_path / 'part', tmp_path)
    assert (result.status, result.reason) == ('failed', 'exit status 3')
    assert result.log_tail == ['last words']
    assert result.results == dict(x=1)


def test_bad_results_fail_though_the_command_did_not(tmp_path):
    part = make_part('', read=lambda folder: Outcome(faults=['loss is nan']))
    result = run_part(part, tmp_path / 'part', tmp_path)
    assert (result.status, result.reason) == ('failed', 'loss is nan')


def test_results_cut_short_fail(tmp_path):
    part = make_part('', read=lambda folder: json.loads('{"cases": ['))
    result = run_part(part, tmp_path / 'part', tmp_path)
    assert result.status == 'failed' and 'cannot be read' in result.reason


def test_a_late_part_is_ended_with_its_children(tmp_path):
    code = (
        'import pathlib, subprocess, sys, time\n'
        'child = subprocess.Popen(["sleep", "60"])\n'
        'pathlib.Path(sys.argv[1], "child").write_text(str(child.pid))\n'
        'time.sleep(60)'
    )
    start = time.monotonic()
    part = make_part(code, limit=3)
    result = run_part(part, tmp_path / 'part', tmp_path)
    assert time.monotonic() - start < 20
    assert result.status == 'failed'
    assert result.reason == 'not done within its limit of 3 s'
    pid = int((tmp_path / 'part' / 'child').read_text())
    for _ in range(50):
        if not is_running(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail('the child goes on')


def is_running(pid):
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rsplit(')', 1)[1].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False


def check(parts, tmp_path):
    """Run the check; exit status, report, what was printed."""
    out, text = tmp_path / 'new' / 'out.json', io.StringIO()
    console = Console(file=text, width=100)
    code = run_check(parts, HEADER, out, tmp_path / 'parts', tmp_path, console)
    return code, json.loads(out.read_text()), text.getvalue()


def test_parts_run_after_one_has_failed(tmp_path):
    parts = [
        make_part('print("boom"); raise SystemExit(1)', 'first'),
        Part('second', 'title of second', skip_reason='no CUDA device'),
        make_part('', 'third'),
    ]
    code, report, text = check(parts, tmp_path)
    assert code == 1 and report['status'] == 'failed'
    assert [part['status'] for part in report['parts']] == [
        'failed',
        'skipped',
        'passed',
    ]
    assert report['skipped'] == ['second (title of second): no CUDA device']
    assert set(report) == {
        *('status', 'date', 'seconds', 'skipped', 'parts'),
        *HEADER,
    }
    for part in report['parts']:
        assert set(part) == {
            *('name', 'title', 'status', 'reason', 'seconds', 'limit'),
            *('summary', 'results', 'log_tail'),
        }
    assert 'boom' in text and 'exit status 1' in text
    assert 'skipped: second (title of second): no CUDA device' in text


def test_all_is_well(tmp_path):
    code, report, text = check([make_part('')], tmp_path)
    assert code == 0 and report['status'] == 'passed'
    assert report['skipped'] == [] and 'well' in text


def test_skipped_tests_and_cases_are_named(tmp_path):
    case = dict(batch_size=256, precision='fp32', status='skipped')
    results = dict(
        skip_reasons={'needs two GPUs': 3},
        cases=[case | dict(reason='the GPU has too little memory')],
    )
    part = make_part('', read=lambda folder: Outcome(results))
    _, report, _ = check([part], tmp_path)
    assert report['skipped'] == [
        '3 tests of part: needs two GPUs',
        'part, batch 256 fp32: the GPU has too little memory',
    ]


def test_what_was_measured_is_on_disk_before_the_next_part(tmp_path):
    code = (
        'import json, pathlib, sys\n'
        'out = pathlib.Path(sys.argv[1], "../../new/out.json").resolve()\n'
        'parts = json.loads(out.read_text())["parts"]\n'
        'assert [p["status"] for p in parts] == ["passed", "skipped"]\n'
        'assert parts[1]["reason"] == "not reached"\n'
    )
    parts = [make_part('', 'first'), make_part(code, 'second')]
    status, report, _ = check(parts, tmp_path)
    assert status == 0, report['parts'][1]['log_tail']
