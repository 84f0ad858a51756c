import io
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from demo.plots import CLASS_COLORS, plot_curves, plot_embedding
from demo.report import html_report, markdown_report
from demo.settings import PRETRAIN_CONFIGS, DemoSettings
from demo.stages import label_name
from demo.summary import build_summary, expectations
from demo.tables import (
    COLUMNS,
    TRANSFER_COLUMNS,
    finding_lines,
    print_results,
    result_rows,
    transfer_rows,
)

KNN = {None: 70.0, 0.0: 75.0, 0.1: 78.0, 1.0: 82.0}
# Box AP, mask AP and mIoU, from random weights and by share of labels.
TRANSFER = {
    None: (20.0, 18.0, 40.0),
    0.0: (22.0, 19.0, 42.0),
    0.1: (23.0, 20.5, 44.0),
    1.0: (25.0, 21.0, 45.0),
}
PICTURES = {'curves.png': b'first', 'embedding.png': b'second'}


def _summary(knn=KNN, quick=False, epochs=3):
    # Three trainings side by side, then, after a break, the probes.
    results = {
        'random-init': dict(knn_top1=knn[None], seconds=1.0, ended=101.0)
    }
    for ratio in PRETRAIN_CONFIGS:
        results[label_name(ratio)] = dict(
            label_ratio=ratio,
            knn_top1=knn[ratio],
            epochs=epochs,
            seconds=99.6,
            ended=200.0 + ratio,
        )
    for ratio, value in knn.items():
        results[f'{label_name(ratio)}-linear'] = dict(
            linear_top1=value + 1, seconds=2.0, ended=1000.0
        )
    curve = dict(
        loss=[[e, 10.0 - e] for e in range(1, epochs + 1)],
        knn_top1=[[e, 70.0 + e] for e in range(1, epochs + 1)],
    )
    return build_summary(
        DemoSettings('unused', seed=3, quick=quick),
        results,
        dict.fromkeys(PRETRAIN_CONFIGS, curve),
        dict(python='3', torch='2'),
        dict(processor='some <processor>', cores=2, system='Linux'),
    )


def test_summary_has_the_promised_form():
    summary = _summary()
    assert [e['label_ratio'] for e in summary['pretrain']] == [0.0, 0.1, 1.0]
    for entry in summary['pretrain']:
        assert entry['knn_top1'] == KNN[entry['label_ratio']]
        assert entry['linear_top1'] == KNN[entry['label_ratio']] + 1
        assert entry['epochs'] == 3
        assert entry['seconds'] == 99.6
    assert summary['random_init'] == dict(knn_top1=70.0, linear_top1=71.0)
    assert summary['versions'] == dict(python='3', torch='2')
    assert summary['seed'] == 3
    assert summary['total_seconds'] == pytest.approx(101 + 2)
    assert summary['quick'] is False


@pytest.mark.parametrize(
    ('changed', 'held'),
    [
        ({}, [True, True, True]),
        ({None: 75.0}, [False, True, True]),
        ({1.0: 79.9}, [True, False, True]),
        ({0.1: 75.0}, [True, True, False]),
        ({0.1: 82.0}, [True, True, False]),
    ],
)
def test_expectations_are_checked(changed, held):
    found = expectations(_summary({**KNN, **changed}))
    assert [result for _, result in found] == held


def test_expectation_that_failed_is_told():
    lines = finding_lines(_summary({**KNN, 1.0: 79.0}))
    assert [line.startswith('NOT AS EXPECTED') for line in lines] == [
        False,
        True,
        False,
    ]
    assert 'by 4.0 points' in lines[1]


def _with_transfer(**changed):
    """A summary as the transfer part completes it."""
    summary = _summary()
    scores = TRANSFER | changed.get('scores', {})
    summary['detection'] = [
        dict(bbox_mAP=box, segm_mAP=mask) for box, mask, _ in scores.values()
    ]
    summary['segmentation'] = [dict(mIoU=iou) for *_, iou in scores.values()]
    return summary


@pytest.mark.parametrize(
    ('changed', 'held'),
    [
        ({}, [True, True, True]),
        # One pre-training that is no better than random weights is enough.
        ({0.1: (20.0, 20.5, 44.0)}, [False, True, True]),
        ({1.0: (25.0, 17.9, 39.0)}, [True, False, False]),
    ],
)
def test_expectations_of_transfer_are_checked(changed, held):
    summary = _with_transfer(scores=changed)
    found = expectations(summary)[3:]
    assert [result for _, result in found] == held
    starts = [text.split(':')[0] for text, _ in found]
    assert starts == ['Box AP', 'Mask AP', 'mIoU']
    told = [line.split(':')[0] for line in finding_lines(summary)[3:]]
    words = {True: 'as expected', False: 'NOT AS EXPECTED'}
    assert told == [words[result] for result in held]


def test_transfer_has_a_table(tmp_path):
    summary = _with_transfer()
    rows = transfer_rows(summary)
    assert {len(row) for row in rows} == {len(TRANSFER_COLUMNS)}
    assert rows[0] == ('none (random weights)', '20.0 %', '18.0 %', '40.0 %')
    assert rows[2] == ('10 % labels', '23.0 %', '20.5 %', '44.0 %')
    assert transfer_rows(_summary()) == []
    out = io.StringIO()
    print_results(Console(file=out, width=80), summary, tmp_path)
    text = out.getvalue()
    assert re.search(r'10 % labels\W+23\.0 %\W+20\.5 %\W+44\.0 %', text)
    assert 'Box AP: pre-training with 0, 10 and 100 % of the labels' in text
    assert 'against random weights: +2.0, +3.0, +5.0 points' in text


def test_quick_run_draws_no_conclusions():
    (line,) = finding_lines(_summary(quick=True))
    assert '--quick' in line


def test_rows_fit_the_columns():
    rows = result_rows(_summary())
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert rows[0] == ('none (random weights)', '70.0 %', '71.0 %', '-', '-')
    assert rows[3] == ('100 % labels', '82.0 %', '83.0 %', '3', '1 min 40 s')


def test_terminal_shows_table_findings_and_report(tmp_path):
    out = io.StringIO()
    print_results(Console(file=out, width=80), _summary(), tmp_path)
    text = out.getvalue()
    assert re.search(r'10 % labels\W+78\.0 %\W+79\.0 %', text)
    assert 'by 7.0 points' in text
    assert 'report.html' in text


def test_markdown_has_the_table_and_its_pictures():
    text = markdown_report(_summary())
    assert '| 10 % labels | 78.0 % | 79.0 % | 3 | 1 min 40 s |' in text
    for name in PICTURES:
        assert f']({name})' in text


def test_html_needs_no_other_file():
    text = html_report(_summary(), PICTURES)
    sources = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', text)
    assert len(sources) == len(PICTURES)
    assert all(s.startswith('data:image/png;base64,') for s in sources)
    assert not re.search(r'https?://|url\(|@import|<script|<link', text)


def test_html_escapes_what_it_does_not_know():
    text = html_report(_summary(), PICTURES)
    assert 'some &lt;processor&gt;' in text


@pytest.mark.parametrize('epochs', [1, 3, 40])
def test_curves_are_drawn(epochs):
    picture = plot_curves(_summary(epochs=epochs))
    assert _ink(picture) > 0.02


def test_curves_of_a_run_without_logs_are_drawn():
    summary = _summary()
    for entry in summary['pretrain']:
        entry['curves'] = dict(loss=[], knn_top1=[])
    assert _ink(plot_curves(summary)) > 0.01


def test_embedding_shows_every_class_in_its_colour():
    labels = np.repeat(np.arange(10), 30)
    rng = np.random.default_rng(0)
    centres = rng.permutation(10)[labels][:, None] * [30.0, 10.0]
    points = centres + rng.normal(size=(300, 2))
    classes = tuple(f'class {i}' for i in range(10))
    picture = plot_embedding(dict.fromkeys(KNN, points), labels, classes, KNN)
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert('RGB'))
    seen = set(map(tuple, pixels.reshape(-1, 3)))
    for color in CLASS_COLORS:
        # Edges of the names are drawn over white at 85 %.
        solid = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
        mixed = 0.85 * solid + 0.15 * 255
        assert any(np.abs(mixed - pixel).max() < 6 for pixel in seen), color


def _ink(picture: bytes) -> float:
    """Part of the pixels that are not white."""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert('L'))
    return float((pixels < 250).mean())
