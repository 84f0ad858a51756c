"""Mean, spread and winners against numpy and scipy; records."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from scipy.stats import ttest_ind

from mmunimoco.study.command_line import main
from mmunimoco.study.compare import records_of
from mmunimoco.study.expectations import judge
from mmunimoco.study.plots import all_plots
from mmunimoco.study.progress import duration
from mmunimoco.study.records import (
    Results,
    hardware_of,
    read_curves,
    read_loss,
    read_progress,
)
from mmunimoco.study.report import print_report, write_report
from mmunimoco.study.scores import summarise_records, welch


def records(scores, grid=None, **protocol):
    """Records of {variant: values over seeds}, in no order of seeds."""
    return [
        dict(
            status='done',
            variant=name,
            group=name.partition(',')[0],
            grid=(grid or {}).get(name, {}),
            label_ratio=None,
            seed=seed,
            evaluation='knn',
            protocol=dict(type='knn', metrics=['top1']) | protocol,
            metrics=dict(top1=dict(last=value, best=value + 1)),
        )
        for name, values in scores.items()
        for seed, value in enumerate(values)
    ]


def winners(scores, **options):
    summary = summarise_records(records(scores, **options))
    return {name for (name, _), cell in summary.cells.items() if cell.wins}


CLEAR = dict(a=(70.1, 70.9, 70.3), b=(80.2, 80.9, 80.4), c=(60.0, 61.0, 62.0))


def test_mean_std_and_p_are_those_of_numpy_and_scipy(tmp_path):
    generator = np.random.default_rng(0)
    scores = {
        name: tuple(generator.normal(mean, 2, n))
        for name, mean, n in (('a', 70, 3), ('b', 75, 5), ('c', 60, 4))
    }
    write_report(tmp_path, 'Title', records(scores))
    with (tmp_path / 'results.csv').open() as file:
        rows = {row['variant']: row for row in csv.DictReader(file)}
    for name, values in scores.items():
        row = rows[name]
        assert int(row['n']) == len(values)
        assert np.isclose(float(row['mean']), np.mean(values))
        assert np.isclose(float(row['std']), np.std(values, ddof=1))
        assert np.isclose(float(row['best_mean']), np.mean(values) + 1)
    best, second = sorted(scores, key=lambda name: -np.mean(scores[name]))[:2]
    p_value = ttest_ind(scores[best], scores[second], equal_var=False).pvalue
    assert np.isclose(float(rows[best]['p_value']), p_value)
    assert (rows[best]['wins'] == 'True') == (p_value < 0.05)


@pytest.mark.parametrize(
    ('scores', 'expected'),
    [
        (CLEAR, {'b'}),
        # Two seeds, of the best or of the runner-up.
        (CLEAR | dict(b=(80.2, 80.9)), set()),
        (CLEAR | dict(a=(70.1, 70.9)), set()),
        # Within the noise.
        (dict(a=(70.0, 75.0, 80.0), b=(72.0, 76.0, 81.0)), set()),
        # Of p = 0.07; of a one-sided test it would be half of that.
        (dict(a=(70.0, 71.0, 72.0), b=(72.0, 73.0, 74.0)), set()),
        # All seeds alike: no noise was measured.
        (dict(a=(70.0,) * 3, b=(80.0,) * 3), set()),
        (dict(a=(70.0, 71.0, 72.0)), set()),
    ],
)
def test_winner_only_beyond_the_noise(scores, expected):
    assert winners(scores) == expected
    found = records(scores)
    drawn = all_plots(summarise_records(found), found)['bars.svg'][1]
    assert (b'#0072b2' in drawn) == bool(expected)  # the winner's bar


def test_only_the_metrics_of_the_evaluation_are_shown():
    found = records(CLEAR)
    for record in found:
        record['metrics']['top5'] = record['metrics']['top1']
    (column,) = summarise_records(found).columns
    assert (column.evaluation, column.metric) == ('knn', 'top1')


def test_lower_is_better():
    assert winners(CLEAR, lower_is_better=True) == {'c'}


def test_errors_of_any_runs(tmp_path, capsys):
    """The winner and the best epoch are those of the lower values."""
    runs = []
    for name, start in (('good', 1.0), ('bad', 2.0)):
        for seed in range(3):
            folder = tmp_path / f'{name}{seed}'
            log = folder / 'now/vis_data/scalars.json'
            log.parent.mkdir(parents=True)
            (log.parent / 'config.py').write_text(
                f'randomness = dict(seed={seed})'
            )
            values = (start - 0.5, start + 0.01 * seed)
            lines = [
                json.dumps(dict(mae=value, top1=value, step=step))
                for step, value in enumerate(values, 1)
            ]
            log.write_text('\n'.join(lines))
            runs.append(f'{name}={folder}')
    command = ['compare', *runs, '--work-dir', str(tmp_path / 'out')]
    found = []
    for more in ([], ['--lower-is-better', 'mae']):
        assert main([*command, *more]) == 0
        with (tmp_path / 'out/results.csv').open() as file:
            rows = list(csv.DictReader(file))
        wins = {r['metric']: r['variant'] for r in rows if r['wins'] == 'True'}
        best = {
            r['metric']: float(r['best_mean'])
            for r in rows
            if r['variant'] == 'good'
        }
        found.append((wins, best))
    assert found[0] == (
        dict(mae='bad', top1='bad'),
        dict(mae=pytest.approx(1.01), top1=pytest.approx(1.01)),
    )
    assert found[1] == (
        dict(mae='good', top1='bad'),
        dict(mae=0.5, top1=pytest.approx(1.01)),
    )
    page = (tmp_path / 'out/report.html').read_text()
    assert 'Of mae the lower value is the better one' in page
    capsys.readouterr()
    assert main([*command, '--lower-is-better', 'mea']) == 1
    assert 'no run logs mea; they log mae, top1' in capsys.readouterr().out


def test_variants_are_compared_at_the_same_point_of_the_grid():
    values = {
        'unicon, r=0.1': (50.1, 50.2, 50.3),
        'supcon, r=0.1': (40.1, 40.2, 40.3),
        'unicon, r=1.0': (90.1, 90.2, 90.3),
        'supcon, r=1.0': (90.2, 90.1, 90.4),
    }
    grid = {name: dict(r=name[-3:]) for name in values}
    assert winners(values, grid=grid) == {'unicon, r=0.1'}
    rule = summarise_records(records(values, grid=grid)).rule
    assert 'variants at the same point of the grid are compared;' in rule
    # Without a grid: worse than one of the points, then better than all.
    baselines = dict(random=(20.1, 20.2, 20.3), other=(60.1, 60.2, 60.3))
    found = winners(values | baselines, grid=grid)
    assert found == {'unicon, r=0.1'}
    baselines['other'] = (95.1, 95.2, 95.3)
    found = winners(values | baselines, grid=grid)
    assert found == {'unicon, r=0.1', 'other'}
    # One variant with a grid: its points are compared.
    own = {k: v for k, v in values.items() if k.startswith('unicon')}
    assert winners(own, grid=grid) == {'unicon, r=1.0'}


@pytest.mark.parametrize(
    ('entry', 'holds', 'numbers'),
    [
        (dict(better='b', than='a', by=10), 'holds', '80.50 against 70.43'),
        (dict(better='b', than='a', by=10.07), 'holds', '80.50 against 70.'),
        (dict(better='b', than='a', by=10.08), 'does not hold', '80.50 ag'),
        (dict(better='a', than='a'), 'does not hold', '70.43 against 70.43'),
        (
            dict(better=['a', 'b'], than=['c', 'a']),
            *('does not hold', '70.43, 80.50 against 61.00, 70.43'),
        ),
        (dict(better='b', than=['c', 'a'], by=10), 'holds', '80.50 against 6'),
        (dict(better='b', than='z'), 'not known yet', '80.50 against none'),
    ],
)
def test_expectations(tmp_path, entry, holds, numbers):
    values = {k: [v] if isinstance(v, str) else v for k, v in entry.items()}
    known = dict(evaluation='knn', metric='top1', by=0.0)
    expected = known | values | dict(by=entry.get('by', 0.0))
    summary = summarise_records(records(CLEAR))
    (outcome,) = judge(summary, [expected])
    assert str(outcome).startswith(
        f'{holds}: knn: top1: {values["better"][0]}'
    )
    assert numbers in str(outcome)
    write_report(tmp_path, 'T', records(CLEAR), expectations=[expected])
    row = f'| {outcome.claim} | {outcome.numbers} | {holds} |'
    assert row in (tmp_path / 'report.md').read_text()


def test_expectation_of_a_lower_score():
    expected = dict(evaluation='knn', metric='top1', by=9.0)
    expected |= dict(better=['c'], than=['a'])
    low = summarise_records(records(CLEAR, lower_is_better=True))
    assert judge(low, [expected])[0].holds
    assert judge(summarise_records(records(CLEAR)), [expected])[0].holds is (
        False
    )


def test_welch_is_none_without_noise_in_both():
    assert welch((1.0, 1.0), (2.0, 2.0)) is None
    assert welch((1.0, 1.0), (2.0, 2.1)) < 0.05


def test_scale_and_small_scores(tmp_path):
    scores = dict(a=(0.1234, 0.1238))
    write_report(tmp_path, 'Title', records(scores))
    assert '0.1236 ± 0.0003 (n=2)' in (tmp_path / 'report.md').read_text()
    write_report(tmp_path, 'Title', records(scores, scale=100.0))
    assert '12.36 ± 0.03 (n=2)' in (tmp_path / 'report.md').read_text()
    # The mean of the best epochs.
    assert ' | 112.36 | ' in (tmp_path / 'report.md').read_text()


def test_latex_table_escapes_and_marks(tmp_path):
    scores = {name.replace('b', '10 % & b_1'): v for name, v in CLEAR.items()}
    write_report(tmp_path, 'Title', records(scores))
    text = (tmp_path / 'results.tex').read_text()
    mean, std = np.mean(CLEAR['b']), np.std(CLEAR['b'], ddof=1)
    cell = f'\\textbf{{{mean:.2f} $\\pm$ {std:.2f} (n=3)}}'
    assert f'10 \\% \\& b\\_1 & {cell} \\\\' in text


def test_records_survive_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / 'results.jsonl'
    results = Results(path)
    results.append(dict(key='a', status='failed'))
    assert not results.finished('a')  # tried again
    with path.open('ab') as file:
        file.write(b'{"key": "b", "sta')
    results = Results(path)
    assert [r['key'] for r in results.records] == ['a']
    results.append(dict(key='a', status='done'))
    read = Results(path)
    assert read.finished('a') and not read.finished('b')
    assert [r['status'] for r in read.records] == ['failed', 'done']


def test_curves_of_a_resumed_run(tmp_path):
    """A validation that was repeated counts once, training not at all."""
    logs = {
        '20250101_000000': [
            dict(loss=2.0, lr=0.1, iter=1, epoch=1, step=1),
            {'knn/top1': 30.0, 'time': 0.1, 'step': 1},
            {'knn/top1': 99.0, 'step': 2},
        ],
        '20250102_000000': [
            {'knn/top1': 40.0, 'data_time': 0.1, 'step': 2},
            {'knn/top1': 35.0, 'step': 3},
        ],
    }
    for name, lines in logs.items():
        path = tmp_path / name / 'vis_data/scalars.json'
        path.parent.mkdir(parents=True)
        path.write_text('\n'.join(map(json.dumps, lines)) + '\n{"cut')
    assert read_curves(tmp_path) == {
        'knn/top1': [[1, 30.0], [2, 40.0], [3, 35.0]]
    }


def test_loss_and_progress_of_a_resumed_run(tmp_path):
    for name, start, stop in (('20250101', 1, 801), ('20250102', 700, 1000)):
        path = tmp_path / name / 'vis_data/scalars.json'
        path.parent.mkdir(parents=True)
        lines = [dict(iter=i, loss=i + start) for i in range(start, stop)]
        path.write_text('\n'.join(map(json.dumps, lines)))
    points = read_loss(tmp_path)
    assert 300 < len(points) <= 400
    assert all(y == x + (1 if x < 700 else 700) for x, y in points)
    assert read_progress(tmp_path) == (999, 'loss 1699.000')


def test_gpus_are_those_that_the_run_has_logged(tmp_path):
    machine = dict(cores=4)
    assert hardware_of(tmp_path, machine) == machine
    (tmp_path / '1').mkdir()
    (tmp_path / '1/1.log').write_text('System:\n    GPU 0,1: H100\n')
    found = hardware_of(tmp_path, machine)
    assert found == {'cores': 4, 'GPU 0,1': 'H100'}


@pytest.mark.parametrize('width', [45, 80, 300])
def test_terminal_shows_whole_names_and_scores(width):
    scores = {'random weights': (60, 61, 62), '[ours]': (70, 75, 71)}
    scores['x'] = (50,)
    found = [
        dict(record, evaluation=f'evaluation {index}')
        for index in range(5)
        for record in records(scores)
    ]
    console = Console(width=width, file=io.StringIO())
    print_report(console, Path('report.html'), found)
    printed = console.file.getvalue()
    tables = printed.count('Variant')
    assert tables == {45: 5, 80: 2, 300: 1}[width]
    assert printed.count('random') == printed.count('weights') == tables
    assert printed.count('[ours]') == tables
    assert printed.count(' 61.00 ± 1.00 (n=3) ') == 5
    assert printed.count(' 72.00 ± 2.65 (n=3)* ') == 5
    assert printed.count(' 50.00 ') == 5 and '(n=1)' not in printed
    for index in range(5):
        assert f' evaluation {index} ' in printed


def test_scores_over_labels_are_drawn_beside_those_without_pretraining():
    found = [
        dict(
            record,
            label_ratio=dict(none=0.0, all=1.0).get(record['variant']),
            series='UniMoCo',
            curves={'top1': [[0, 1.0]], 'knn': [[0, 1.0], [1, 2.0]]},
            unit='epoch',
        )
        for record in records({'none': (70,), 'all': (71,), 'random': (40,)})
    ]
    plots = all_plots(summarise_records(found), found)
    # matplotlib writes each text as a comment before its outlines.
    drawn = plots['label_ratio.svg'][1].decode()
    assert '<!-- random -->' in drawn and '<!-- UniMoCo -->' in drawn
    assert '<!-- 40 -->' in drawn and '<!-- 100 -->' in drawn  # on the axes
    # One validation is no curve.
    curves = plots['curves.svg'][1].decode()
    assert '<!-- knn -->' in curves and '<!-- top1 -->' not in curves


def test_curves_are_those_of_pretraining():
    """Those of an evaluation count other epochs."""
    found = [
        dict(
            record,
            evaluation=evaluation,
            curves={name: [[1, 1.0], [2, 2.0]]},
            loss=[[100, 1.0], [200, 0.5]],
            unit='epoch',
        )
        for evaluation, name in (('pretrain', 'knn'), ('linear', 'probe'))
        for record in records({'a': (1,)})
    ]
    plots = all_plots(summarise_records(found), found)
    curves, loss = (
        plots[f'{name}.svg'][1].decode() for name in ('curves', 'loss')
    )
    assert '<!-- knn -->' in curves and '<!-- probe -->' not in curves
    assert '<!-- epoch -->' in curves and '<!-- iteration -->' in loss


def figures(monkeypatch, found):
    """The figures that are drawn, by name, and their captions."""
    drawn = []

    def savefig(figure, *_, **__):
        figure.draw_without_rendering()
        drawn.append(figure)

    monkeypatch.setattr(Figure, 'savefig', savefig)
    made = all_plots(summarise_records(found), found)
    captions = {name: caption for name, (caption, _) in made.items()}
    return dict(zip(made, drawn, strict=True)), captions


def shown_text(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_numbers_in_the_pictures(monkeypatch):
    """Means and spread of the last epoch, in the order of the variants."""
    scores = dict(all=(70, 74), none=(50, 51), random=(11, 13))
    found = [
        dict(
            record,
            label_ratio=dict(all=1.0, none=0.0).get(name),
            series='UniMoCo',
            curves=dict(top1=[[2, value], [1, value - seed]]),
            loss=[[100, value / 10], [50, value]],
            unit='epoch',
        )
        for record in records(scores)
        for name, seed in [(record['variant'], record['seed'])]
        for value in [record['metrics']['top1']['last']]
    ]
    for record in found:  # the last point is not the best one
        record['curves']['top1'].sort()
        record['curves']['top1'][0][1] += 20
    drawn, _ = figures(monkeypatch, found)

    (panel,) = drawn['label_ratio.svg'].axes
    assert panel.get_xlabel() == 'labels in %'
    ((line, _, (bars,)),) = panel.containers
    assert line.get_xydata().tolist() == [[0, 50.5], [100, 72]]
    ends = [segment[:, 1] for segment in bars.get_segments()]
    spread = np.std(scores['none'], ddof=1), np.std(scores['all'], ddof=1)
    assert np.allclose(np.ptp(ends, axis=1) / 2, spread)
    assert shown_text(drawn['label_ratio.svg']) == ['random', 'UniMoCo']
    assert panel.lines[-1].get_ydata() == [12, 12]

    (panel,) = drawn['curves.svg'].axes
    assert (panel.get_xlabel(), panel.get_title()) == ('epoch', 'top1')
    assert shown_text(drawn['curves.svg']) == [*scores]
    for line, band, values in zip(
        *(panel.lines, panel.collections, scores.values()), strict=True
    ):
        first = [v + 20 - seed for seed, v in enumerate(values)]
        expected = [[1, np.mean(first)], [2, np.mean(values)]]
        assert line.get_xydata().tolist() == expected
        area = {tuple(point) for point in band.get_paths()[0].vertices}
        ends = [(1, x) for x in first] + [(2, x) for x in values]
        assert area == set(ends)

    (panel,) = drawn['loss.svg'].axes
    assert panel.get_xlabel() == 'iteration'
    assert panel.lines[0].get_xydata().tolist() == [[50, 72], [100, 7.2]]

    (panel,) = drawn['bars.svg'].axes
    assert [x.get_text() for x in panel.get_yticklabels()] == [*scores]
    assert panel.get_ylim()[0] > panel.get_ylim()[1]  # the first on top
    bars = [bar for bar in panel.patches if bar.get_width()]
    assert [bar.get_width() for bar in bars] == [72, 50.5, 12]
    dots = [x for x in panel.lines if x.get_marker() == 'o']
    assert [tuple(x.get_xdata()) for x in dots] == [*scores.values()]
    ends = [x.get_segments()[0][:, 0] for x in panel.collections]
    spread = [np.std(values, ddof=1) for values in scores.values()]
    assert np.allclose(np.ptp(ends, axis=1) / 2, spread)


def test_an_axis_that_is_cut_says_so(monkeypatch):
    """Where the scores of an evaluation are close to each other."""
    scores = dict(
        near=dict(a=(80,), b=(82,), c=(81,)),
        far=dict(a=(8,), b=(80,)),
        negative=dict(a=(-80,), b=(-82,)),
    )
    found = [
        dict(record, evaluation=name)
        for name, values in scores.items()
        for record in records(values)
    ]
    figure = figures(monkeypatch, found)[0]['bars.svg']
    shown, unused = figure.axes[:3], figure.axes[3]
    assert not unused.get_visible()
    for axes, (name, values) in zip(shown, scores.items(), strict=True):
        assert axes.get_title() == f'{name}: top1'
        assert [x.get_text() for x in axes.get_yticklabels()] == [*values]
        low, high = axes.get_xlim()
        assert not low < 0 < high == (name == 'near')
        said = 'the axis does not start at 0' if name == 'near' else ''
        assert axes.get_xlabel() == said


def with_curves(name, evaluation='pretrain', unit='epoch', **fields):
    (record,) = records({name: (2.0,)})
    curves = dict(top1=[[1, 1.0], [2, 2.0]])
    known = dict(evaluation=evaluation, unit=unit, curves=curves)
    return dict(record, **(known | fields))


def test_curves_of_two_evaluations_are_not_seeds_of_one(monkeypatch):
    found = [with_curves('a', kind) for kind in ('linear', 'semi')]
    found[1]['curves'] = dict(top1=[[1, 5.0], [2, 6.0]])
    panels = figures(monkeypatch, found)[0]['curves.svg'].axes
    assert {
        panel.get_title(): panel.lines[0].get_ydata().tolist()
        for panel in panels
    } == {'linear: top1': [1, 2], 'semi: top1': [5, 6]}


def test_losses_of_all_evaluations_are_shown(monkeypatch):
    """Where pre-training has none."""
    found = [
        with_curves('a', kind, loss=[[1, value], [2, value]])
        for kind, value in (('linear', 1.0), ('semi', 5.0))
    ]
    panels = figures(monkeypatch, found)[0]['loss.svg'].axes
    assert {
        panel.get_title(): panel.lines[0].get_ydata().tolist()
        for panel in panels
    } == {'linear: loss': [1, 1], 'semi: loss': [5, 5]}


def test_loss_of_runs_that_do_not_validate(monkeypatch):
    loss = [[10, 2.0], [20, 1.0]]
    found = [
        with_curves('a', curves={}, loss=loss),
        with_curves('b', loss=loss),
        with_curves('a', 'linear'),
    ]
    figure = figures(monkeypatch, found)[0]['loss.svg']
    assert shown_text(figure) == ['a', 'b']


def test_runs_that_count_epochs_and_iterations(monkeypatch):
    """Compared with each other, they share an axis."""
    found = [with_curves('a'), with_curves('b', unit='iteration')]
    (panel,) = figures(monkeypatch, found)[0]['curves.svg'].axes
    assert panel.get_xlabel() == 'epoch or iteration'


def test_what_pictures_leave_out_is_said(monkeypatch):
    curves = {f'm{i}': [[1, 1.0], [2, 2.0]] for i in range(5)}
    loss = [[10, 2.0]]
    found = [
        with_curves(f'v{i}', curves=curves, loss=loss, label_ratio=ratio)
        for i, ratio in enumerate([0.0, 1.0, *20 * [None]])
    ]
    drawn, captions = figures(monkeypatch, found)
    assert len(drawn['curves.svg'].axes) == 4
    assert 'Of 5 metrics the first 4 are' in captions['curves.svg']
    for name in ('curves.svg', 'loss.svg'):
        assert len(shown_text(drawn[name])) == 21
        assert 'Of 22 variants the first 21 are' in captions[name]
    assert 'Of 20 other variants the first 3' in captions['label_ratio.svg']
    _, captions = figures(monkeypatch, found[:5])
    for name in ('label_ratio.svg', 'loss.svg'):
        assert 'Of ' not in captions[name]


def test_report_of_runs_that_differ_and_of_failed_ones(tmp_path):
    found = records(dict(a=(1.0, 2.0)))
    for record, code, end in zip(found, 'xy', (100, 20), strict=True):
        record |= dict(code=code, label_ratio=0.1, unit='epoch')
        value = record['metrics']['top1']['last']
        record['curves'] = dict(top1=[[1, 0.0], [end, value]])
    tail = [f'line {index}' for index in range(9)]
    failed = dict(status='failed', metrics={}, tail=tail)
    found += [found[0] | failed, found[0] | failed | dict(variant='z')]
    others = dict(name='O', evaluation='knn', value=50.0, std=0.5, source='p')
    write_report(tmp_path, 'T', found, [dict(others, metric='top1', n=3)])
    text = (tmp_path / 'report.md').read_text()
    assert 'Code: x, y' in text and 'of different versions of the c' in text
    assert '| a, seed 0 | knn | line 5 / line 6 / line 7 / line 8 |' in text
    assert 'of knn are of different lengths: epoch 20, epoch 100.' in text
    assert text.count('\n| z |') == 1  # in the table of all runs alone
    with (tmp_path / 'results.csv').open() as file:
        own, published = csv.DictReader(file)
    assert (own['n'], own['label_ratio']) == ('2', '0.1')
    names = ('mean', 'std', 'n', 'metric')
    assert [published[x] for x in names] == ['50.0', '0.5', '3', 'top1']
    write_report(tmp_path, 'T', found[:1], [dict(others, metric='top5')])
    assert '50.0' not in (tmp_path / 'report.md').read_text()


@pytest.fixture
def whole_report(tmp_path):
    """A report with all that may be in its tables, as numbers known here."""
    found = records(dict(a=(70.0, 72.0, 74.0), b=(80.0, 80.5, 81.0)))
    for record in found:
        record |= dict(seconds=61.0 + record['seed'], log='runs/a #1.log')
        record |= dict(config='runs/a.py', machine=dict(cpu='<x>'))
        record['versions'] = dict(torch='2.1')
    other = dict(found[0], evaluation='linear', seed=None, seconds=None)
    other |= dict(log=None, config=None, protocol=dict(l2=0.5, scale=0.01))
    other['metrics'] = dict(a_c=dict(last=50.0, best=52.0))
    other |= dict(curves=dict(a_c=[[3, 52.0], [9, 50.0]]), unit='epoch')
    published = [
        dict(evaluation='knn', value=9.5, std=0.3, metric='top1', n=4),
        dict(evaluation='linear', value=0.4, metric='a_c'),
        dict(evaluation='semi', value=1.0, metric='top1'),
    ]
    for name, entry in zip('OPQ', published, strict=True):
        entry |= dict(name=f'{name}_1', source=f'<{name}>')
    write_report(tmp_path, 'A < B', [*found, other], published)
    return tmp_path


P_VALUE = ttest_ind((70, 72, 74), (80, 80.5, 81), equal_var=False).pvalue


def test_tables_of_a_report(whole_report):
    text = (whole_report / 'report.md').read_text()
    lines = text.splitlines()
    assert lines[0] == '# A < B'
    _, results, details, runs, setup = re.split('\n## .*\n', text)
    assert 'Scores are those of the last epoch' in results
    caption = 'Scores of the last epoch; error bars: standard deviation over '
    assert f'\n\n{caption}' in results and f'![{caption}' in results

    def rows(part):
        return [x for x in part.splitlines() if x.startswith('| ')]

    assert rows(results) == [
        '| Variant | knn: top1 | linear: a_c |',
        '| --- | --- | --- |',
        '| a | 72.00 ± 2.00 (n=3) | 0.5000 (n=1) |',
        r'| b | 80.50 ± 0.50 (n=3)\* |  |',
        '| O_1 (published, not run here: <O>) | 9.5 ± 0.3 † |  |',
        '| P_1 (published, not run here: <P>) |  | 0.4 † |',
        '| Q_1 (published, not run here: <Q>) |  |  |',
    ]
    names = 'Variant | Evaluation | Metric | n | Mean | Std'
    assert rows(details) == [
        f'| {names} | Mean of best epochs | p against runner-up |',
        '| --- | --- | --- | --- | --- | --- | --- | --- |',
        '| a | knn | top1 | 3 | 72.00 | 2.00 | 73.00 |  |',
        f'| b | knn | top1 | 3 | 80.50 | 0.50 | 81.50 | {P_VALUE:.2g} |',
        '| a | linear | a_c | 1 | 0.5000 |  | 0.5200 |  |',
    ]
    assert rows(runs)[0] == (
        '| Variant | Run | Seed | State | Scores | Last scored '
        '| Time | Log | Config |'
    )
    links = '[log](./runs/a%20%231.log) | [config](./runs/a.py)'
    assert rows(runs)[2] == (
        f'| a | knn | 0 | done | top1 70.00 |  | {duration(61)} | {links} |'
    )
    assert rows(runs)[-1] == (
        '| a | linear |  | done | a_c 0.5000 | epoch 9 |  |  |  |'
    )
    assert [x for x in setup.splitlines() if x] == [
        "- Protocol knn: type=knn, metrics=['top1']",
        '- Protocol linear: l2=0.5, scale=0.01',
        '- Machine: cpu <x>',
        '- Versions: torch 2.1',
    ]


def test_csv_of_a_report(whole_report):
    header, *rows = (whole_report / 'results.csv').read_text().splitlines()
    assert header == (
        'variant,label_ratio,evaluation,metric,n,mean,std,best_mean,wins,'
        'p_value,source'
    )
    assert rows == [
        'a,,knn,top1,3,72.0,2.0,73.0,False,,measured',
        f'b,,knn,top1,3,80.5,0.5,81.5,True,{P_VALUE},measured',
        'a,,linear,a_c,1,0.5,,0.52,False,,measured',
        'O_1,,knn,top1,4,9.5,0.3,,,,published: <O>',
        'P_1,,linear,a_c,,0.4,,,,,published: <P>',
        'Q_1,,semi,top1,,1.0,,,,,published: <Q>',
    ]


def test_latex_of_a_report(whole_report):
    rule, *lines = (whole_report / 'results.tex').read_text().splitlines()
    assert rule.startswith('% Scores are those of') and rule.isascii()
    assert 'mean +- standard deviation (n - 1)' in rule
    assert lines == [
        r'\begin{tabular}{lrr}',
        r'\hline',
        r'Variant & knn: top1 & linear: a\_c \\',
        r'\hline',
        r'a & 72.00 $\pm$ 2.00 (n=3) & 0.5000 (n=1) \\',
        r'b & \textbf{80.50 $\pm$ 0.50 (n=3)} & -- \\',
        r'O\_1 (published: $<$O$>$) & 9.5 $\pm$ 0.3 & -- \\',
        r'P\_1 (published: $<$P$>$) & -- & 0.4 \\',
        r'Q\_1 (published: $<$Q$>$) & -- & -- \\',
        r'\hline',
        r'\end{tabular}',
    ]


def test_page_of_a_report(whole_report):
    """What a cell is sorted by, and that texts stay texts."""
    page = (whole_report / 'report.html').read_text()
    assert '<title>A &lt; B</title>' in page and '<h1>A &lt; B</h1>' in page
    assert '<li>Machine: cpu &lt;x&gt;</li>' in page
    assert '(published, not run here: &lt;O&gt;)</td>' in page
    parts = '<p>Scores are', 'id="results"', '<figure>', 'id="details"'
    places = [page.index(part) for part in parts]
    assert places == sorted(places)

    def cells(table, row):
        body = re.search(f'id="{table}".*?<tbody>(.*?)</tbody>', page, re.S)
        line = body[1].strip().splitlines()[row]
        return re.findall('<td(?: class="number")?(.*?)</td>', line)

    assert cells('results', 0)[1:] == [
        ' data-value="72.0">72.00 ± 2.00 (n=3)',
        ' data-value="0.5">0.5000 (n=1)',
    ]
    assert cells('results', 2)[1:] == [' data-value="9.5">9.5 ± 0.3 †', '>']
    p_value = cells('details', 1)[-1]
    assert p_value.endswith(f'>{P_VALUE:.2g}')
    assert float(p_value.split('"')[1]) == pytest.approx(P_VALUE)
    numbers = ['3">3', '72.0">72.00', '2.0">2.00', '73.0">73.00']
    assert cells('details', 0)[3:] == [
        *(f' data-value="{x}' for x in numbers),
        '>',
    ]
    assert cells('runs', 1)[2] == ' data-value="1">1'
    assert cells('runs', -1)[5] == ' data-value="9">epoch 9'
    assert cells('runs', 1)[6] == f' data-value="62.0">{duration(62)}'
    href = '><a href="./runs/a%20%231.log">log</a>'
    assert cells('runs', 1)[7] == href
    assert [cells('runs', -1)[i] for i in (2, 6, 7)] == ['>', '>', '>']


def test_what_a_comparison_reads_from_the_newest_config(tmp_path):
    dataset = "dict(type='PartialLabels', label_ratio=0.3)"
    for name, seed, length in (('1', 5, 'iters'), ('2', 6, 'epochs')):
        folder = tmp_path / name / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'config.py').write_text(
            f'randomness = dict(seed={seed})\ntrain_cfg = dict('
            f'max_{length}=9)\ntrain_dataloader = dict(dataset={dataset})'
        )
        (folder / 'scalars.json').write_text('{"top1": 1.0, "step": 9}')
    (record,) = records_of([str(tmp_path)], tmp_path)
    assert record['seed'] == 6 and record['label_ratio'] == 0.3
    assert record['unit'] == 'epoch'


def test_points_of_the_grid_keep_their_own_line(monkeypatch):
    """Fields whose last parts are equal, and titles with a bar."""
    grid = {
        f'a, k={k}, q={q}, r={ratio}': {
            'model.head.momentum': k,
            'model.momentum': q,
            'labels.label_ratio': ratio,
        }
        for k, q in ((1, 2), (2, 1))
        for ratio in (0.0, 1.0)
    }
    scores = {name: (i,) for i, name in enumerate(grid, 1)}
    found = records(scores, grid=grid)
    for record in found:
        record['label_ratio'] = record['grid']['labels.label_ratio']
        record['series'] = 'a'
    (panel,) = figures(monkeypatch, found)[0]['label_ratio.svg'].axes
    lines = {
        bar.get_label(): bar.lines[0].get_xydata().tolist()
        for bar in panel.containers
    }
    assert lines == {
        'a, model.head.momentum=1, model.momentum=2': [[0, 1], [100, 2]],
        'a, model.head.momentum=2, model.momentum=1': [[0, 3], [100, 4]],
    }


def test_titles_with_a_bar_are_one_column(tmp_path):
    found = records(dict(a=(1.0, 2.0)))
    for record in found:
        record['evaluation'] = 'knn | k 20'
    write_report(tmp_path, 'Title', found)
    lines = (tmp_path / 'report.md').read_text().splitlines()
    (header,) = [line for line in lines if 'knn' in line and 'Var' in line][:1]
    assert re.split(r'(?<!\\)\|', header)[1:-1] == [
        ' Variant ',
        ' knn \\| k 20: top1 ',
    ]


def test_the_best_epoch_is_what_the_file_says_today():
    found = records(dict(a=(3.0,)), lower_is_better=True)
    found[0]['curves'] = dict(top1=[[1, 2.0], [2, 9.0], [3, 3.0]])
    (cell,) = summarise_records(found).cells.values()
    assert cell.values == (3.0,) and cell.best == (2.0,)


@pytest.mark.parametrize('lower', [False, True])
@pytest.mark.parametrize('place', [0, 1, 2])
def test_an_epoch_without_a_score_is_not_the_best(place, lower):
    found = records(dict(a=(3.0,)), lower_is_better=lower)
    scores = [2.0, 9.0]
    scores.insert(place, float('nan'))
    found[0]['curves'] = dict(top1=list(enumerate(scores)))
    (cell,) = summarise_records(found).cells.values()
    assert cell.best == ((2.0,) if lower else (9.0,))
    np.testing.assert_equal(cell.values, (scores[-1],))


def test_latex_is_escaped(tmp_path):
    names = ['[a] 10 % & b_c', r'x^2 ~ \y < {z}']
    write_report(tmp_path, 'T', records({name: (1.0,) for name in names}))
    lines = (tmp_path / 'results.tex').read_text().splitlines()
    assert r'{}[a] 10 \% \& b\_c & 1.00 (n=1) \\' in lines
    escaped = r'x\textasciicircum{}2 \textasciitilde{} \textbackslash{}y $<$'
    assert any(line.startswith(rf'{escaped} \{{z\}} & ') for line in lines)


def test_pictures_that_are_half_written_are_left_out(tmp_path):
    folder = tmp_path / 'figures'
    folder.mkdir()
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3))
    Image.fromarray(noise.astype(np.uint8)).save(folder / 'a whole.png')
    content = (folder / 'a whole.png').read_bytes()
    for size in (0, 20, 60, len(content) // 2):
        (folder / f'cut{size}.png').write_bytes(content[:size])
    page = write_report(tmp_path, 'T', records(dict(a=(1.0,)))).read_text()
    text = (tmp_path / 'report.md').read_text()
    assert '![a whole](figures/a%20whole.png)' in text
    assert '![cut' not in text and page.count('data:image/png') == 1
    lines = re.findall('figures/(cut.*?) is damaged', text)
    assert lines == re.findall('figures/(cut.*?) is damaged', page)
    assert len(lines) == 4


def test_long_names_fit_into_the_pictures():
    """Legends of as many columns as fit, and names in several lines."""
    long = 'a method with a name of ' + 9 * 'many words and '
    names = [f'{long}{number}' for number in range(3)]
    found = [
        dict(record, label_ratio=0.1 * index, curves={}, unit='epoch')
        for index, record in enumerate(records({n: (50,) for n in names}))
    ]
    plots = all_plots(summarise_records(found), found)
    for _, svg in plots.values():
        texts = re.findall('<!-- (.*?) -->', svg.decode(), re.S)
        assert any('a method' in text for text in texts)
        assert max(map(len, '\n'.join(texts).split('\n'))) <= 110


@pytest.mark.parametrize(
    ('name', 'evaluation', 'metric'),
    [('x$5_$10', 'knn', 'a'), ('x', '$5_$', 'a'), ('x', 'knn', '$5_$')],
)
def test_dollars_are_no_mathematics(name, evaluation, metric):
    """In legends, ticks and titles; as such these cannot be drawn."""
    found = [
        dict(
            record,
            label_ratio=0.1 * index,
            series=record['variant'],
            evaluation=evaluation,
            metrics={metric: record['metrics']['top1']},
            protocol=dict(metrics=[metric]),
            curves={metric: [[0, 1.0], [1, 2.0]]},
            loss=[[0, 1.0]],
            unit='epoch',
        )
        for index, record in enumerate(records({name: (50,), 'y': (51,)}))
    ]
    plots = all_plots(summarise_records(found), found)
    assert len(plots) == 4
    for file, (_, svg) in plots.items():
        texts = re.findall('<!-- (.*?) -->', svg.decode())
        titles = {'curves.svg': metric, 'loss.svg': 'loss'}
        title = titles.get(file, f'{evaluation}: {metric}')
        assert {name, 'y', title} <= set(texts)


def test_what_is_no_sample_wins_nothing():
    """Fixed weights have one score; a run that is not a number has none."""
    for name in ('a', 'b'):  # the runner-up, and the best
        fixed = dict(CLEAR, **{name: (70.0, 70.0, 70.0)})
        assert winners(fixed) == set()
    lost = dict(d=(float('nan'), 99.0, 98.0))
    assert winners(lost | CLEAR) == winners(CLEAR | lost) == {'b'}
    (cell,) = summarise_records(records(lost)).cells.values()
    assert cell.text() == 'nan ± nan (n=3)'
