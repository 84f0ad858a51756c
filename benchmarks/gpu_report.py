"""Sum up what the parts of ``gpu_check.sh`` left behind."""

import argparse
import json
import sys
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mmunimoco.utils.atomic import write_json
from mmunimoco.utils.versions import describe_environment


def summarize(folder: Path) -> dict[str, Any]:
    """Sum up what the parts of a check left behind.

    Args:
        folder (Path): Has ``*.jsonl`` of tests, ``*.status`` with the exit
            status of each part (124 or 137: its time limit) and ``step.json``
            of ``benchmarks.speed``; any of them may be missing.

    Returns:
        dict: ``passed`` if every part ended with status 0, ``parts`` with the
        exit status (None if the part was cut off), ``tests`` by file, ``step``
        and the environment.
    """
    parts = {}
    for path in sorted(folder.glob('*.status')):
        text = path.read_text().strip()
        parts[path.stem] = int(text) if text else None
    tests = {}
    for path in sorted(folder.glob('*.jsonl')):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found = [line for line in lines if 'test' in line]
        selected = sum(line.get('selected', 0) for line in lines)
        tests[path.stem] = dict(
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
    step = folder / 'step.json'
    return dict(
        passed=bool(parts) and not any(x != 0 for x in parts.values()),
        parts=parts,
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        **describe_environment(),
        tests=tests,
        step=json.loads(step.read_text()).get('step')
        if step.is_file()
        else None,
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description='Sum up a GPU check.')
    parser.add_argument('folder', type=Path)
    parser.add_argument('--out', type=Path, required=True)
    args = parser.parse_args(argv)
    report = summarize(args.folder)
    write_json(args.out, report)
    for name, counts in report['tests'].items():
        numbers = {k: v for k, v in counts.items() if isinstance(v, int)}
        print(name, *(f'{count} {what}' for what, count in numbers.items()))
    for name, ratio in ((report['step'] or {}).get('ratios') or {}).items():
        print(f'step, {name}: {ratio["median"]}')
    print(f'exit status by part: {report["parts"]}; report: {args.out}')
    return int(not report['passed'])


if __name__ == '__main__':
    sys.exit(main())
