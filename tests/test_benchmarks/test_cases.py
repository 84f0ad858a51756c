"""Every case of the benchmark, much reduced, and what becomes of it."""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from PIL import Image

import mmunimoco  # noqa: F401
from benchmarks import head_case, shuffle_case
from benchmarks.case import FAST, MOCO, OURS, PUBLISHED, Settings
from benchmarks.cost_model import Step, step_cost
from benchmarks.images import draw_images
from benchmarks.run import NAMES, load_cases
from benchmarks.step_case import AUGMENTED
from benchmarks.trainer import for_cpu, set_view_size

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    draw_images(folder, count=4)
    return folder


@pytest.fixture
def run_case(images, tmp_path):
    """Run a case, reduced; its result as the JSON has it."""
    settings = Settings('cpu', images, tmp_path, workers=1, quick=True)

    def run(name):
        (case,) = load_cases([name])
        fractions = []
        result = case.run(settings, lambda done, _: fractions.append(done))
        assert fractions == sorted(fractions)
        assert 0 <= fractions[0] <= fractions[-1] <= 1
        assert all(len(row) == 4 for row in case.rows(result))
        assert set(case.headlines) <= set(result)
        case.draw(Figure().subplots(), result)
        return json.loads(json.dumps(result))

    return run


def check_ratio(ratio, ours, theirs):
    """A ratio of two medians of two rounds lies near their ratio."""
    assert ratio['q1'] <= ratio['median'] <= ratio['q3']
    quotient = ours['median'] / theirs['median']
    assert 0.01 < ratio['median'] / quotient < 100


def test_head(run_case):
    result = run_case('head')
    shares = {(c['loss'], c['label_share']) for c in result['cases']}
    assert shares == {
        (loss, share) for loss in head_case.LOSSES for share in (0, 0.1, 1)
    }
    first = result['cases'][0]
    assert result['time_ratio'] == first['time_ratio']['median']
    assert result['memory_ratio'] == pytest.approx(
        first['ours']['peak_bytes'] / first['published']['peak_bytes'],
        rel=1e-3,
    )
    for case in result['cases']:
        assert case['loss_difference'] < 1e-4


def test_head_refuses_to_time_what_computes_something_else(monkeypatch):
    config, _ = head_case.LOSSES['UniCon']
    wrong = head_case.LOSSES['SupCon, in'][1]
    monkeypatch.setitem(head_case.LOSSES, 'UniCon', (config, wrong))
    problem = head_case.Problem(queue_len=64, batch=4, dim=8)
    with pytest.raises(RuntimeError, match='losses differ'):
        head_case.measure([problem], 'cpu', 1, lambda: None)


def test_head_plan_has_the_stated_sizes(images, tmp_path):
    groups = head_case.plan(Settings('cpu', images, tmp_path))
    first = groups[0].problems[0]
    assert first == head_case.Problem(
        loss='UniCon', label_share=1, batch=256, dim=128, queue_len=65536
    )
    # What takes turns with it asks the other losses the same.
    assert {p.queue_len for p in groups[0].problems} == {65536}
    lengths = {p.queue_len for group in groups for p in group.problems}
    assert lengths == {1024, 4096, 16384, 65536, 262144}


def test_memory_of_the_head_is_flat_in_the_queue():
    problems = [
        head_case.Problem(queue_len=length, batch=128)
        for length in (8192, 32768)
    ]
    short, long = head_case.measure(problems, 'cpu', 1, lambda: None)
    assert long['ours']['peak_bytes'] < 1.5 * short['ours']['peak_bytes']
    assert long['memory_ratio'] <= 0.10


def test_step(run_case):
    (case,) = run_case('step')['cases']
    names = {OURS, FAST, AUGMENTED, MOCO, PUBLISHED}
    assert set(case['contestants']) == names
    for entry in case['contestants'].values():
        assert entry['flop_utilisation'] > 0
        assert entry['peak_bytes'] > 0
    ours, published = (case['contestants'][n] for n in (OURS, PUBLISHED))
    check_ratio(
        case['ratios'][f'{OURS} / {PUBLISHED}'],
        ours['images_per_second'],
        published['images_per_second'],
    )


def test_input(run_case):
    result = run_case('input')
    rates = result['images_per_second']
    assert set(rates) == {FAST, MOCO, PUBLISHED}
    check_ratio(result['ratios'][MOCO], rates[FAST], rates[MOCO])
    assert result['throughput_ratio'] == result['ratios'][MOCO]['median']


def test_end2end(run_case):
    result = run_case('end2end')
    names = {OURS, FAST, MOCO}
    assert set(result['images_per_second']) == names
    assert set(result['share_of_step_rate']) == names
    assert f'{FAST} / {MOCO}' in result['ratios']


def test_shuffle_sends_what_the_cost_model_says(run_case):
    result = run_case('shuffle')
    step = Step(2, shuffle_case.BATCH, 'all_gather', image=32)
    sent = result['all_gather_bytes_per_rank']
    assert sent == {'2': step_cost(step).image_bytes}
    # The permutation decides how many images stay; half do on average.
    step = replace(step, shuffle='all_to_all')
    wanted = step_cost(step).image_bytes
    assert result['bytes_per_rank']['2'] == pytest.approx(wanted, rel=0.35)


def test_scaling(run_case):
    result = run_case('scaling')
    assert [x['label_share'] for x in result['labels']] == [0, 0.1, 1]
    assert [x['batch'] for x in result['batches']] == [2, 4]
    assert [x['processes'] for x in result['processes']] == [1, 2]
    assert result['labels'][0]['ratio_to_no_labels']['median'] == 1


def test_command_writes_json_plot_and_table(
    images, tmp_path, monkeypatch, capsys
):
    out = tmp_path / 'out' / 'speed.json'
    options = ['--quick', '--device', 'cpu', '--cases', 'head']
    paths = ['--out', str(out), '--work-dir', str(tmp_path / 'work')]
    monkeypatch.setenv('IMAGENET_SAMPLES', str(images))
    call(monkeypatch, *options, *paths)
    report = json.loads(out.read_text())
    assert report['head.time_ratio'] == report['head']['time_ratio']
    assert report['head.memory_ratio'] == report['head']['memory_ratio']
    assert report['versions']['torch'] == torch.__version__
    assert report['machine']['cores'] >= 1
    assert report['options']['quick']
    assert report['images'].startswith('4 photographs')
    # Neither where the images lie nor where this ran.
    assert str(tmp_path) not in out.read_text()
    assert Image.open(out.with_suffix('.png')).width > 400
    printed = capsys.readouterr().out
    assert 'head.time_ratio = ' in printed
    assert 'SupCon' in printed


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--cases', 'head,heads', '--out', 'a.json'], 'there is no heads'),
        (['--out', 'a.txt'], '--out must end with .json'),
        (['--workers', '0', '--out', 'a.json'], '--workers must be 1'),
    ],
)
def test_wrong_options_are_refused(options, message, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, *options)
    assert message in capsys.readouterr().err


def call(monkeypatch, *options):
    path = str(ROOT / 'tools' / 'benchmarks' / 'speed.py')
    monkeypatch.setattr(sys, 'argv', [path, *options])
    runpy.run_path(path, run_name='__main__')


def test_cases_come_in_order():
    assert [c.name for c in load_cases(list(NAMES[::-1]))] == list(NAMES)


def test_what_needs_cuda_is_left_out_on_a_cpu():
    optimizer = dict(type='SGD', lr=0.1, fused=True)
    cfg = Config(
        dict(
            optim_wrapper=dict(
                type='AmpOptimWrapper', dtype='bfloat16', optimizer=optimizer
            ),
            custom_hooks=[
                dict(type='StepOptionsHook', channels_last=True, compile=True),
            ],
        )
    )
    assert for_cpu(cfg).to_dict() == dict(
        optim_wrapper=dict(
            type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)
        ),
        custom_hooks=[dict(type='StepOptionsHook', channels_last=True)],
    )


def test_views_of_any_pipeline_change_size():
    crop = dict(type='mmpretrain.RandomResizedCrop', scale=224)
    pipeline = Config(
        dict(
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='MultiView', num_views=2, transforms=[[crop]]),
                dict(type='LoadTwoCrops', scale=224),
            ]
        )
    ).pipeline
    set_view_size(pipeline, 64)
    assert pipeline[1].transforms[0][0].scale == 64
    assert pipeline[2].scale == 64
