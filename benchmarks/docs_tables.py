"""Fill the measured numbers of README.md and docs/ from their records.

A block between ``<!-- table: NAME -->`` and ``<!-- end -->`` is replaced by
the table NAME below, the text between ``<!-- value: NAME -->`` and
``<!-- end -->`` within a line by the value NAME.

python -m benchmarks.docs_tables          # rewrite
python -m benchmarks.docs_tables --check  # exit status 1 if a file differs
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from .study_tables import (
    cifar10_cpu,
    cifar10_cpu_curves,
    cifar10_cpu_differences,
    cifar10_cpu_long,
    cifar10_cpu_long_curves,
    cifar10_cpu_long_differences,
    cifar10_cpu_propagation,
    cone,
    demo_classification_by_seed,
    demo_seeds,
    demo_transfer_by_seed,
    markdown,
    slow_start,
)

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r'(?P<open><!-- (?P<kind>table|value): (?P<name>[\w-]+) -->)'
    r'.*?(?P<close><!-- end -->)',
    re.S,
)
HEAD = '65536, fp32'
MOCO = 'mmpretrain MoCo v2'


@cache
def record(name: str) -> dict:
    """Read ``docs/benchmarks/NAME.json``."""
    return json.loads((ROOT / f'docs/benchmarks/{name}.json').read_text())


def spread(values: dict, digits: int = 2) -> str:
    """Write a median with its quartiles: '0.15 (0.14 to 0.16)'."""
    median, low, high = (
        f'{values[key]:.{digits}f}' for key in ('median', 'q1', 'q3')
    )
    return f'{median} ({low} to {high})'


# --------------------------------------------------------------------- tables
def head() -> str:
    """Time and memory of every loss at the published size."""
    case = record('speed_cpu')['head']
    rows = []
    for name, ratio in case['ratios'].items():
        loss, _, rest = name.partition(' % labels, K ')
        if rest != HEAD:
            continue
        seconds = case['seconds'][name]
        rows.append(
            [
                f'{loss} % labels',
                *(
                    f'{1000 * seconds[which]["median"]:.0f} ms'
                    for which in ('ours', 'published')
                ),
                spread(ratio),
                f'{case["memory_ratios"][name]:.3f}',
            ]
        )
    return markdown(
        ['loss', 'ours', 'published', 'time ratio', 'memory ratio'],
        sorted(rows),
    )


def input_path() -> str:
    """Images per second of one data loader worker."""
    case = record('speed_cpu')['input']
    rows = []
    for name, rate in case['images_per_second'].items():
        ratio = case['ratios'].get(f'ours / {name}')
        ratio = spread(ratio, 1) if ratio else ''
        rows.append([name, f'{rate["median"]:.0f}', ratio])
    return markdown(['pipeline', 'images/s per core', 'ours / this'], rows)


def step() -> str:
    """Time ratios of training steps on a CPU."""
    speed = record('speed_cpu')
    ratios = {**speed['step']['ratios'], **speed['augment']['ratios']}
    rows = [[name, spread(ratio)] for name, ratio in ratios.items()]
    return markdown(['step time, A / B', 'ratio'], rows)


def shuffle() -> str:
    """Megabytes that a process sends for shuffled BN."""
    case = record('speed_cpu')['shuffle']
    rows = [
        [
            world,
            f'{sent / 1e6:.1f} MB',
            f'{case["all_gather_bytes_per_process"][world] / 1e6:.1f} MB',
        ]
        for world, sent in case['bytes_per_process'].items()
    ]
    return markdown(['processes', 'all_to_all', 'all_gather'], rows)


def labels() -> str:
    """Time of a step with labels over that without."""
    ratios = record('speed_cpu')['scaling']['ratios']
    rows = [[name, spread(ratio)] for name, ratio in ratios.items()]
    return markdown(['step time', 'ratio'], rows)


def views() -> str:
    """KNN accuracy with published and with fast views."""
    rows = [
        [
            f'{100 * row["labels"]:g} %',
            *(
                f'{row[key]["mean"]:.1f} ± {row[key]["std"]:.1f}'
                for key in ('published', 'fast', 'difference')
            ),
        ]
        for row in record('views_cifar10')['summary']
    ]
    columns = ['labels', 'published', 'fast', 'fast - published, per seed']
    return markdown(columns, rows)


def soak_faults() -> str:
    """Faults of the hour-long soak by kind."""
    kinds = record('soak_cpu')['faults_by_kind']
    rows = [[name, str(count)] for name, count in kinds.items()]
    return markdown(['fault or damage', 'times'], rows)


def cost_per_gpu() -> str:
    """Cost model: what does not depend on the number of GPUs."""
    from .cost_model import Step, cost_rows

    small, large = (cost_rows(Step(1, batch)) for batch in (32, 256))
    rows = [
        [name, value, other]
        for (name, value), (_, other) in zip(small, large, strict=True)
    ]
    return markdown(['per GPU', 'batch 32', 'batch 256'], rows)


def cost_by_gpus() -> str:
    """Cost model: bytes sent and upper bounds by number of GPUs."""
    from .cost_model import HARDWARE, TRAFFIC_COLUMNS, Step, traffic_rows

    rows = traffic_rows(Step(1, 32), [1, 8, 64, 512], HARDWARE['h200'], 0.0)
    return markdown(list(TRAFFIC_COLUMNS), [list(row) for row in rows])


def estimate() -> str:
    """Estimated rates on H100s by number of GPUs and batch."""
    from .estimate import COLUMNS, estimate_rows

    rows = estimate_rows([1, 8, 16, 64, 256, 512])
    return markdown(list(COLUMNS), [list(row) for row in rows])


def h100_step() -> str:
    """What was timed on an H100 around a training step."""
    prof = record('h100/prof')
    ours, alone = prof['ours_fast_b256'], prof['e2e ours, fast']['step_alone']
    least = prof['minimal_compiled_b256']
    files = prof['e2e ours, fast']['jpeg_to_weights']
    rates = {
        'step, normalising only': ours['img_s'],
        'step, augmenting on the device': alone,
        'JPEG files to updated weights, 16 processes': files,
        'the same 16 processes without a step': prof['loader16_img_s'],
        'a step by hand, normalising only': least['img_s'],
        'nvJPEG alone, lists of 250': prof['nvjpeg_img_s'],
    }
    rows = [
        [name, f'{rate}', f'{256_000 / rate:.1f} ms']
        for name, rate in rates.items()
    ]
    return markdown(['on one H100', 'images/s', 'for 256 images'], rows)


def h100_head() -> str:
    """Time and memory of the losses on an H100, against the published form."""
    rows = []
    for case in record('h100/speed_head')['head']['cases']:
        if case['queue_len'] != 65536 or case['precision'] != 'fp32':
            continue
        if case['label_share'] not in (0.0, 1.0):
            continue
        times = (case[x]['seconds']['median'] for x in ('ours', 'published'))
        rows.append(
            [
                f'{case["loss"]}, {100 * case["label_share"]:g} % labels',
                *(f'{1000 * x:.2f} ms' for x in times),
                f'{case["time_ratio"]["median"]:.1f}',
                f'{case["memory_ratio"]:.3f}',
            ]
        )
    return markdown(
        ['loss', 'ours (loop)', 'published', 'time ratio', 'memory ratio'],
        sorted(rows),
    )


def h100_cifar10() -> str:
    """KNN and similarities on CIFAR-10 after ten of 20 epochs."""
    logs = {
        'UniCon, 0 % labels': 'u000',
        'UniCon, 10 % labels': 'u010',
        'UniCon, 100 % labels': 'u100',
        'SupCon, 100 % labels': 's100',
    }
    rows = []
    for title, name in logs.items():
        log = ROOT / f'docs/benchmarks/h100/cifar10_20e_{name}.txt'
        tenth = re.findall(r'Epoch.*\[10\].*', log.read_text())
        values = dict(re.findall(r'(\S+): +([\d.]+)', ' '.join(tenth)))
        knn = float(values['knn/top1'])
        pairs = (values[f'{x}_similarity'] for x in ('positive', 'negative'))
        rows.append([title, f'{knn:.1f}', *(f'{float(x):.2f}' for x in pairs)])
    columns = ['kNN top-1', 'similarity of positives', 'of negatives']
    return markdown(['after ten epochs', *columns], rows)


def h200() -> str:
    """What ``gpu.sh`` timed on an H200, while others ran beside it."""
    report = record('h200/gpu')['speed']
    step, augment = report['step']['seconds'], report['augment']['seconds']
    cifar = report['cifar']

    def row(name: str, seconds: float, images: int = 0) -> list[str]:
        rate = f'{images / seconds:.0f}' if images else ''
        return [name, f'{1000 * seconds:.1f} ms', rate]

    views = {
        'augmentation of 256 images alone, four kernels': 'alone',
        'the same by plain operations': 'augmenting by plain operations, '
        'alone',
    }
    rate = cifar['images_per_second']['training']['median']
    rows = [
        row(name, seconds['median'], int(name.split()[-1]))
        for name, seconds in step.items()
    ]
    rows += [
        row(name, augment[key]['median'], 256) for name, key in views.items()
    ]
    rows.append(row('CIFAR-10, batch 512', cifar['batch'] / rate, 512))
    rows.append(row('its kNN evaluation', cifar['seconds']['kNN']['median']))
    return markdown(['on one H200, once', 'time', 'images/s'], rows)


TABLES: dict[str, Callable[[], str]] = {
    function.__name__.replace('_', '-'): function
    for function in (
        *(demo_seeds, demo_classification_by_seed, demo_transfer_by_seed),
        *(head, input_path, step, shuffle, labels, views, soak_faults),
        *(cost_per_gpu, cost_by_gpus, estimate, h100_step, h100_head, h200),
        h100_cifar10,
        *(slow_start, cone),
        *(cifar10_cpu, cifar10_cpu_curves, cifar10_cpu_differences),
        *(cifar10_cpu_long, cifar10_cpu_long_curves),
        cifar10_cpu_long_differences,
        cifar10_cpu_propagation,
    )
}


# --------------------------------------------------------------------- values
def _range(prefix: str = '', key: str = 'ratios') -> str:
    """Smallest and largest ratio of a loss at the published size."""
    values = [
        ratio['median'] if isinstance(ratio, dict) else ratio
        for name, ratio in record('speed_cpu')['head'][key].items()
        if name.startswith(prefix) and name.endswith(HEAD)
    ]
    low, high = f'{min(values):.2f}', f'{max(values):.2f}'
    return low if low == high else f'{low} to {high}'


def _h100(name: str) -> str:
    """A number of the H100 in docs/performance.md."""
    from . import estimate

    prof, card = record('h100/prof'), estimate.calibrated_h100()
    ours, files = prof['ours_fast_b256'], prof['e2e ours, fast']
    rate = files['step_alone']
    heads = [
        case['time_ratio']['median']
        for case in record('h100/speed_head')['head']['cases']
        if case['queue_len'] == 65536 and case['precision'] == 'fp32'
        if case['label_share'] == 1.0
    ]
    hours = estimate.EPOCHS * estimate.IMAGES / files['jpeg_to_weights'] / 3600
    return {
        'hours': f'{hours:.1f}',
        'of-minimal': (
            f'{ours["img_s"] / prof["minimal_compiled_b256"]["img_s"]:.2f}'
        ),
        'files': f'{100 * files["jpeg_to_weights"] / rate:.0f}',
        'augmenting': f'{100 * (ours["img_s"] / rate - 1):.0f}',
        'head-time': f'{min(heads):.1f} to {max(heads):.1f}',
        'host': f'{ours["host_ms"]:.0f}',
        'step-ms': f'{ours["ms"]:.0f}',
        'share': f'{100 * card.memory_share:.0f}',
        'augmenting-us': f'{1e6 * card.augmenting:.0f}',
        'cores': f'{rate * estimate.core_seconds():.0f}',
    }[name]


VALUES: dict[str, Callable[[], str]] = {
    'head-time': lambda: _range(),
    'unicon-time': lambda: _range('UniCon, '),
    'supcon-time': lambda: _range('SupCon, '),
    'infonce-time': lambda: _range('InfoNCE, '),
    'head-memory-max': lambda: _range(key='memory_ratios').split()[-1],
    'input-ratio': lambda: '{:.1f}'.format(
        record('speed_cpu')['input']['ratios'][f'ours / {MOCO}']['median']
    ),
    **{
        f'h100-{name}': partial(_h100, name)
        for name in ('hours', 'of-minimal', 'files', 'augmenting')
        + ('head-time', 'host', 'step-ms', 'share', 'augmenting-us', 'cores')
    },
    **{
        f'soak-{name.replace("_", "-")}': (
            lambda name=name: f'{record("soak_cpu")[name]:.0f}'
        )
        for name in ('minutes', 'steps', 'interval', 'faults', 'restarts')
        + ('steps_repeated', 'most_repeated', 'losses_compared')
    },
    **{
        f'soak-{name.replace("_", "-")}': (
            lambda name=name: f'{record("soak_cpu")["memory"][name]:.1f}'
        )
        for name in ('growth_mib', 'median_mib')
    },
}


def fill(text: str, where: str) -> str:
    """Replace every marked block of a text.

    Args:
        text (str): Markdown.
        where (str): Name of the file, for errors.

    Raises:
        ValueError: If a name is unknown or a block is not closed.
    """

    def replace(match: re.Match) -> str:
        kind, name = match['kind'], match['name']
        known = TABLES if kind == 'table' else VALUES
        if name not in known:
            raise ValueError(
                f'{where}: unknown {kind} {name!r}; choose from '
                f'{", ".join(known)}'
            )
        content = known[name]()
        if kind == 'table':
            content = f'\n\n{content}\n\n'
        return match['open'] + content + match['close']

    opened = len(re.findall(r'<!-- (?:table|value): ', text))
    blocks = list(BLOCK.finditer(text))
    nested = any(
        '<!-- ' in b[0][4:].removesuffix('<!-- end -->') for b in blocks
    )
    if opened != len(blocks) or nested:
        raise ValueError(f'{where}: a marked block lacks <!-- end -->')
    return BLOCK.sub(replace, text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.docs_tables',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--check', action='store_true')
    args = parser.parse_args(argv)
    differ = 0
    paths = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]
    paths += sorted((ROOT / 'configs').rglob('README.md'))
    for path in paths:
        text, name = path.read_text(), path.relative_to(ROOT)
        try:
            filled = fill(text, str(name))
        except (KeyError, ValueError) as error:
            print(f'error: {error}', file=sys.stderr)
            return 2
        if filled != text:
            differ = 1
            done = 'differs from its records' if args.check else 'rewritten'
            print(f'{name} {done}')
            if not args.check:
                path.write_text(filled)
    return differ if args.check else 0


if __name__ == '__main__':
    sys.exit(main())
