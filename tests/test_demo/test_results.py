"""Summary, expectations, tables, report, pictures, and several seeds."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from demo.collect_seeds import collect_seeds, main
from demo.plots import (
    CLASS_COLORS,
    SCENE_COLORS,
    plot_curves,
    plot_embedding,
    plot_predictions,
    plot_transfer,
)
from demo.report import html_report, markdown_report
from demo.results import (
    build_summary,
    expectations,
    finding_lines,
    print_results,
    result_rows,
    transfer_rows,
)
from demo.scenes import Scene, SceneObject
from demo.settings import PRETRAIN_CONFIGS, DemoSettings, backbone_name
from demo.training import read_curves

KNN = {None: 70.0, 0.0: 75.0, 0.1: 78.0, 1.0: 82.0}
# Box AP, mask AP and mIoU.
TRANSFER = {
    None: (20.0, 18.0, 40.0),
    0.0: (22.0, 19.0, 42.0),
    0.1: (23.0, 20.5, 44.0),
    1.0: (25.0, 21.0, 45.0),
}


def _summary(knn=None, transfer=None, seed=3, quick=False, epochs=3):
    knn = {**KNN, **(knn or {})}
    # Three trainings in parallel, and after a break the probes.
    results = {'scenes': dict(train=24, val=8, seconds=0.0, ended=101.0)}
    for index, (ratio, top1) in enumerate(knn.items()):
        name = backbone_name(ratio)
        results[name] = dict(
            label_ratio=ratio,
            knn_top1=top1,
            epochs=max(1, epochs),
            steps=31 * max(1, epochs),
            seconds=99.6,
            ended=200.0 + index,
        )
        results[f'{name}-linear'] = dict(
            linear_top1=top1 + 1, seconds=2.0, ended=1000.0
        )
        box, mask, iou = {**TRANSFER, **(transfer or {})}[ratio]
        results[f'{name}-detection'] = dict(
            bbox_mAP=box, segm_mAP=mask, seconds=0.0, ended=1000.0
        )
        results[f'{name}-segmentation'] = dict(
            mIoU=iou, seconds=0.0, ended=1000.0
        )
    for name, top1 in (('supervised-10', 80.0), ('supervised-100', 88.0)):
        results[name] = dict(
            results['labels-10'],
            label_ratio=int(name.split('-')[1]) / 100,
            knn_top1=top1,
            linear_top1=top1 + 1,
        )
    curve = dict(
        loss=[[e, 10.0 - e] for e in range(1, epochs + 1)],
        knn_top1=[[e, 70.0 + e] for e in range(1, epochs + 1)],
    )
    settings = DemoSettings(
        Path('/runs/a b'),
        seed=seed,
        quick=quick,
        transfer=transfer is not None,
    )
    return build_summary(
        settings,
        results,
        dict.fromkeys(PRETRAIN_CONFIGS, curve),
        dict(python='3', torch='2'),
        dict(processor='some <processor>', cores=2, system='Linux'),
    )


def test_summary():
    summary = _summary()
    assert [e['label_ratio'] for e in summary['pretrain']] == [0.0, 0.1, 1.0]
    for entry in summary['pretrain']:
        assert entry['knn_top1'] == KNN[entry['label_ratio']]
        assert entry['linear_top1'] == KNN[entry['label_ratio']] + 1
        assert (entry['epochs'], entry['steps']) == (3, 93)
        assert entry['seconds'] == 99.6
    assert summary['random_init'] == dict(knn_top1=70.0, linear_top1=71.0)
    assert summary['total_seconds'] == pytest.approx(99.6 + 3 + 2)
    assert 'detection' not in summary and transfer_rows(summary) == []
    transfer = _summary(transfer={})
    assert transfer['detection'][2] == dict(
        init='labels-10', bbox_mAP=23.0, segm_mAP=20.5
    )
    assert transfer['segmentation'][0] == dict(init='random', mIoU=40.0)


@pytest.mark.parametrize(
    ('knn', 'transfer', 'failed'),
    [
        ({}, {}, []),
        ({None: 75.0}, {}, [0]),
        ({1.0: 79.9}, {}, [1]),
        ({0.1: 75.0}, {}, [2]),
        ({0.1: 82.0}, {}, [2]),
        # One pre-training no better than random weights is enough.
        ({}, {0.1: (20.0, 20.5, 44.0)}, [3]),
        ({}, {1.0: (25.0, 17.9, 39.0)}, [4, 5]),
    ],
)
def test_six_expectations(knn, transfer, failed):
    summary = _summary(knn, transfer)
    met = [index not in failed for index in range(6)]
    assert [result for _, result in expectations(summary)] == met
    words = {True: 'as expected', False: 'NOT AS EXPECTED'}
    *lines, last = finding_lines(summary)
    for line, result in zip(lines, met, strict=True):
        assert line.startswith(words[result])
    # Of the records in docs/benchmarks.
    assert 'kNN top-1 0.6 to 2.9, Linear top-1 0.2 to 5.7, Box AP 1.4' in last


def test_differences_are_those_of_the_numbers_that_are_shown():
    """79.94 is shown as 79.9 and 74.95 as 75.0."""
    summary = _summary({None: 70.0, 0.0: 74.96, 1.0: 79.94})
    (_, rise), (text, met) = expectations(summary)[:2]
    assert rise and not met
    assert 'all labels is 4.9 points above' in text
    summary = _summary({None: 74.96, 0.0: 75.04})
    text, met = expectations(summary)[0]
    assert 'is 0.0 points above random' in text and not met


def test_tables_and_findings_on_the_terminal(tmp_path):
    summary = _summary(transfer={})
    rows = result_rows(summary)
    assert rows[0] == ('none (random weights)', '70.0 %', '71.0 %', '-', '-')
    assert rows[3] == ('100 % labels', '82.0 %', '83.0 %', '93', '1 min 40 s')
    cross_entropy = 'cross-entropy, 100 % labels'
    assert rows[5] == (cross_entropy, '88.0 %', '89.0 %', '93', '1 min 40 s')
    out = io.StringIO()
    print_results(Console(file=out, width=80), summary, tmp_path)
    text = out.getvalue()
    assert re.search(r'10 % labels\W+78\.0 %\W+79\.0 %', text)
    assert re.search(r'10 % labels\W+23\.0 %\W+20\.5 %\W+44\.0 %', text)
    assert 'all labels is 7.0 points above no labels' in text
    assert 'random weights: +2.0, +3.0, +5.0 points' in text
    assert 'report.html' in text
    assert (
        "test.py configs/demo/unimoco_resnet18_fmnist.py '/runs/a b/stages/"
        in text
    )
    (line,) = finding_lines(_summary(quick=True))
    assert '--quick' in line


@pytest.mark.parametrize('transfer', [None, {}])
def test_report_has_tables_and_pictures(transfer):
    summary = _summary(transfer=transfer)
    names = ['curves.png', 'embedding.png']
    if transfer is not None:
        names += ['transfer.png', 'predictions.png']
    text = markdown_report(summary)
    assert '| 10 % labels | 78.0 % | 79.0 % | 93 | 1 min 40 s |' in text
    assert re.findall(r'\]\((.*?)\)', text) == names
    assert ('| 10 % labels | 23.0 % |' in text) == (transfer is not None)
    text = html_report(summary, dict.fromkeys(names, b'picture'))
    sources = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', text)
    assert len(sources) == len(names)
    assert all(s.startswith('data:image/png;base64,') for s in sources)
    assert not re.search(r'https?://|url\(|@import|<script|<link', text)
    assert 'some &lt;processor&gt;' in text
    # No line ends between a number and its unit.
    assert '<td>10&nbsp;% labels</td><td>78.0&nbsp;%</td>' in text
    assert '6&nbsp;000 images' in text


@pytest.mark.parametrize('epochs', [0, 1, 40])
def test_curves_are_drawn_in_their_colors(epochs):
    colors = _colors(plot_curves(_summary(epochs=epochs)))
    for color in ('#0072B2', '#D55E00', '#009E73'):
        assert np.abs(colors - _rgb(color)).max(1).min() < 12, color


def test_embedding_shows_every_class_in_its_color():
    labels = np.repeat(np.arange(10), 30)
    rng = np.random.default_rng(0)
    centres = rng.permutation(10)[labels][:, None] * [30.0, 10.0]
    points = centres + rng.normal(size=(300, 2))
    classes = tuple(f'class {i}' for i in range(10))
    places = dict.fromkeys(KNN, points)
    colors = _colors(plot_embedding(places, labels, classes, _summary()))
    for color in CLASS_COLORS:
        # The frames of the names are drawn over white at 85 %.
        mixed = 0.85 * _rgb(color) + 0.15 * 255
        assert np.abs(colors - mixed).max(1).min() < 6, color


def test_predictions_are_drawn_in_the_colors_of_their_classes():
    picture = plot_transfer(_summary(transfer={}))
    assert np.abs(_colors(picture) - _rgb('#009E73')).max(1).min() < 12
    mask = np.zeros((64, 64), bool)
    mask[10:40, 20:50] = True
    scene = Scene(np.zeros((64, 64, 3), np.uint8), (SceneObject(3, 0, mask),))
    found = dict(
        scene=np.array([0, 1]),
        masks=np.stack([mask, mask]),
        boxes=np.array([[20.0, 10.0, 50.0, 40.0]] * 2),
        labels=np.array([5, 7]),
    )
    pixels = np.full((1, 64, 64), 7, np.uint8)
    names = tuple(f'class {i}' for i in range(10))
    colors = _colors(plot_predictions([scene], {0.0: (found, pixels)}, names))
    # Of the true object, the detection in this scene, and its pixels; that
    # in the next scene is not drawn.
    for label, drawn in ((3, True), (5, True), (6, True), (7, False)):
        half = 127.5 * SCENE_COLORS[label]
        full = 255 * SCENE_COLORS[label]
        near = np.abs(colors - (full if label == 6 else half)).max(1).min()
        assert (near < 8) == drawn, label


def _colors(picture: bytes) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert('RGB'))
    return np.unique(pixels.reshape(-1, 3), axis=0).astype(float)


def _rgb(color: str) -> np.ndarray:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])


def test_curves_of_an_interrupted_training(tmp_path):
    def train(epoch, loss):
        return json.dumps(dict(lr=0.1, loss=loss, epoch=epoch, step=1))

    def val(epoch, top1):
        return json.dumps({'knn/top1': top1, 'time': 0.1, 'step': epoch})

    cut = '{"lr": 0.1, "lo'
    for folder, lines in {
        '2': [train(2, 2.0), val(2, 60.0), train(3, 1.0), val(3, 70.004)],
        '1': [train(1, 9.0), train(1, 7.0), val(1, 50.0), train(2, 8.0), cut],
        'knn/3': [val(0, 1.0)],  # an evaluation, not the training
    }.items():
        log = tmp_path / folder / 'vis_data' / 'scalars.json'
        log.parent.mkdir(parents=True)
        log.write_text('\n'.join(lines))
    assert read_curves(tmp_path) == dict(
        loss=[[1, 8.0], [2, 2.0], [3, 1.0]],
        knn_top1=[[1, 50.0], [2, 60.0], [3, 70.0]],
    )


def test_seeds_are_combined(tmp_path):
    summaries = [
        _summary({1.0: 84.0}, {}, seed=4),
        _summary({1.0: 79.0}, {}, seed=1),
    ]
    paths = [tmp_path / '4.json', tmp_path / '1.json']
    for path, summary in zip(paths, summaries, strict=True):
        path.write_text(json.dumps(summary))
    out = tmp_path / 'all.json'
    assert main([*map(str, paths), '--out', str(out)]) == 0
    both = json.loads(out.read_text())
    assert both['mean']['100 % labels'] == dict(
        knn_top1=81.5, linear_top1=82.5, bbox_mAP=25, segm_mAP=21, mIoU=45
    )
    assert both['std']['100 % labels']['knn_top1'] == 3.54
    assert both['mean']['none (random weights)']['bbox_mAP'] == 20
    assert [run['seed'] for run in both['runs']] == [1, 4]
    assert [run['as_expected'] for run in both['runs']] == [False, True]
    assert both['versions'] == dict(python='3', torch='2')
    assert collect_seeds([summaries[0]])['std']['0 % labels']['mIoU'] == 0


@pytest.mark.parametrize(
    ('second', 'message'),
    [
        (_summary(seed=1), 'seed occurs twice'),
        (_summary(seed=2, quick=True), 'seed 2 is reduced'),
        ({**_summary(seed=2), 'versions': {}}, 'differ in versions'),
        (_summary(seed=2, transfer={}), 'only some of the runs'),
    ],
)
def test_seeds_that_do_not_compare_are_refused(second, message):
    with pytest.raises(ValueError, match=message):
        collect_seeds([_summary(seed=1), second])
