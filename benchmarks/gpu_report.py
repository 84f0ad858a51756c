"""Join what the parts of ``gpu.sh`` left behind.

Imports nothing outside of Python's library: it runs after every part, in time
that the parts would have.
"""

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

# What ``benchmarks.speed`` says of a whole run.
ENVIRONMENT = ('date', 'device', 'images', 'versions', 'machine', 'git')
LEFT_OUT = 'left out'


def summarize(folder: Path) -> dict[str, Any]:
    """Sum up what the parts of a run left behind.

    Args:
        folder (Path): Has ``*.jsonl`` of tests, ``*.status`` with the exit
            status of each part (124 or 137: its time limit) or 'left out',
            and ``*.json`` of ``benchmarks.speed``; any may be missing.

    Returns:
        dict: ``passed`` if every part that ran ended with status 0, ``parts``
        with the exit status (None if the part was cut off), ``left_out`` by
        part or case, the environment, ``tests`` by file, ``speed`` by case.
    """
    parts, left_out = {}, {}
    for path in sorted(folder.glob('*.status')):
        text = path.read_text().strip()
        if text == LEFT_OUT:
            left_out[path.stem] = 'no time was left'
        parts[path.stem] = int(text) if text.isdigit() else text or None
    environment, cases = {}, {}
    for path in sorted(folder.glob('*.json')):
        if path.name == 'report.json':
            continue
        report = json.loads(path.read_text())
        environment |= {
            key: report[key] for key in ENVIRONMENT if key in report
        }
        for name in report['options']['cases']:
            if name not in report:
                left_out[name] = 'its process was stopped before'
                continue
            # Batch sizes of a case may have processes of their own.
            cases[name] = _join(cases.get(name, {}), report[name])
            left_out |= {
                f'{name}: {what}': why
                for what, why in report[name].get('left_out', {}).items()
            }
    if 'step' in cases:
        cases['step']['ratios'] |= _small_against_large(cases['step'])
    return dict(
        passed=bool(parts)
        and all(status in (0, LEFT_OUT) for status in parts.values()),
        parts=parts,
        left_out=left_out,
        **environment,
        tests={
            path.stem: _count_tests(path)
            for path in sorted(folder.glob('*.jsonl'))
        },
        speed=cases,
    )


def _join(first: dict, second: dict) -> dict:
    """Join two results, whose dicts have keys of their own, and lists."""
    both = first | second
    for key in first.keys() & second.keys():
        if isinstance(first[key], dict) and isinstance(second[key], dict):
            both[key] = _join(first[key], second[key])
        elif isinstance(first[key], list):
            both[key] = first[key] + second[key]
    return both


def _small_against_large(step: dict) -> dict[str, float]:
    """Compare our steps at 32 images with an eighth of one at 256."""
    seconds = step.get('seconds', {})
    whole = seconds.get('ours, batch 256')
    return {
        f'{name} / an eighth of batch 256': round(
            8 * seconds[name]['median'] / whole['median'], 4
        )
        for name in ('ours, batch 32', 'ours, CUDA graphs, batch 32')
        if whole and name in seconds
    }


def _count_tests(path: Path) -> dict[str, Any]:
    """Count the outcomes in a file of ``pytest_lines``."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = [line for line in lines if 'test' in line]
    selected = sum(line.get('selected', 0) for line in lines)
    return dict(
        selected=selected,
        not_reached=selected - len({line['test'] for line in found}),
        **Counter(line['outcome'] for line in found),
        failures={
            line['test']: line['message']
            for line in found
            if line['outcome'] == 'failed'
        },
        measured={
            line['test']: line['measured']
            for line in found
            if line['measured']
        },
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description='Sum up a run of gpu.sh.')
    parser.add_argument('folder', type=Path)
    parser.add_argument('--out', type=Path, required=True)
    args = parser.parse_args(argv)
    report = summarize(args.folder)
    # At once or not at all.
    temporary = args.out.with_name(f'.{args.out.name}.tmp')
    temporary.write_text(json.dumps(report, indent=2) + '\n')
    os.replace(temporary, args.out)
    for name, counts in report['tests'].items():
        numbers = {k: v for k, v in counts.items() if isinstance(v, int)}
        print(name, *(f'{count} {what}' for what, count in numbers.items()))
    for name, case in report['speed'].items():
        for what, ratio in case.get('ratios', {}).items():
            value = ratio['median'] if isinstance(ratio, dict) else ratio
            print(f'{name}: {what}: {value}')
    for what, why in report['left_out'].items():
        print(f'left out: {what}: {why}')
    print(f'exit status by part: {report["parts"]}; report: {args.out}')
    return int(not report['passed'])


if __name__ == '__main__':
    sys.exit(main())
