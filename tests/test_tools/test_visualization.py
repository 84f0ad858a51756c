"""Pictures of views, neighbours and similarities."""

import importlib
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from exact_runs import write_config
from matplotlib import image, pyplot
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch.nn import functional

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module', autouse=True)
def tools_on_the_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'tools/visualization'))
        yield


@pytest.fixture(scope='module')
def narrow(tmp_path_factory):
    """A narrow demo config, and a checkpoint of it with a labeled queue."""
    folder = tmp_path_factory.mktemp('narrow')
    config = write_config(folder, 0, 'interval=9')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    model.head.label_queue.copy_(torch.arange(64) % 10)
    model.head.label_queue[:8] = -1
    torch.save(dict(state_dict=model.state_dict()), folder / 'model.pth')
    return str(config), str(folder / 'model.pth')


def call(monkeypatch, name, *arguments):
    """Run a script in this process; its exit status."""
    shared = importlib.import_module('training_batches')
    script = importlib.import_module(name)
    options = dict(
        show_views=dict(needs_weights=False),
        show_similarities=dict(shows_images=False),
    )
    monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
    show = script.show
    return shared.run('', 'x.png', show, **options.get(name, {}))


def test_views_are_what_the_network_gets(tmp_path, narrow, monkeypatch):
    out = tmp_path / 'new/views.png'
    arguments = narrow[0], '--images', 3, '--out', out
    assert call(monkeypatch, 'show_views', *arguments) == 0
    pixels = image.imread(out)
    assert pixels.shape[1] > pixels.shape[0] > 200 and pixels.std() > 0.1


def test_picture_without_suffix_is_what_is_printed(
    tmp_path, narrow, monkeypatch, capsys
):
    out = tmp_path / 'views'
    arguments = narrow[0], '--images', 1, '--out', out
    assert call(monkeypatch, 'show_views', *arguments) == 0
    assert f'wrote {out}.png\n' in capsys.readouterr().out
    assert [x.name for x in tmp_path.iterdir()] == ['views.png']


def test_names_of_classes_are_no_formulas():
    importlib.import_module('training_batches')
    figure = pyplot.figure()
    for name in ('a $b$', r'$\no$'):
        figure.text(0, 0, name)
    figure.canvas.draw()
    pyplot.close(figure)


def test_normalisation_is_undone(narrow):
    shared = importlib.import_module('training_batches')
    arguments = SimpleNamespace(config=narrow[0], cfg_options={}, seed=0)
    _, model = shared.load(arguments)
    pixels = torch.randint(256, (2, 3, 8, 8)).float()
    preprocessor = model.data_preprocessor
    views = (pixels - preprocessor.mean) / preprocessor.std
    images = shared.as_images(model, views)
    assert images.shape == (2, 8, 8, 3)
    torch.testing.assert_close(images.permute(0, 3, 1, 2) * 255, pixels)


def test_seed_chooses_images(narrow):
    shared = importlib.import_module('training_batches')
    arguments = SimpleNamespace(config=narrow[0], cfg_options={}, seed=0)
    cfg, model = shared.load(arguments)
    # Which images, by their labels.
    labels = [
        next(shared.batches(cfg, model, 1, seed)).labels.tolist()
        for seed in (0, 1, 0)
    ]
    assert labels[0] == labels[2] != labels[1]


def test_neighbours(tmp_path, narrow, monkeypatch):
    out = tmp_path / 'neighbours.png'
    options = '--images', 2, '--batches', 1, '--out', out
    assert call(monkeypatch, 'show_neighbours', *narrow, *options) == 0
    assert image.imread(out).std() > 0.1
    script = importlib.import_module('show_neighbours')
    similarity = torch.tensor([[0.9, 0.1, 0.5], [0.3, 0.8, 0.2]])
    # The own key, also if it is the nearest, stands apart.
    assert script.nearest_others(similarity, 8).tolist() == [[2, 1], [0, 2]]
    assert script.is_same(3, 3) and script.is_same(3, 4) is False
    assert script.is_same(-1, -1) is None


def test_similarities(tmp_path, narrow, monkeypatch, capsys):
    out = tmp_path / 'similarities.png'
    options = '--batches', 2, '--out', out
    assert call(monkeypatch, 'show_similarities', *narrow, *options) == 0
    assert image.imread(out).std() > 0.01
    text = capsys.readouterr().out
    pairs = dict(re.findall(r'^(.*): mean .*, (\d+) pairs', text, re.M))
    # 40 queries, of which some are labeled; a queue of 56 + 8.
    assert pairs['own key'] == '40' and pairs['unlabeled key'] == '320'
    assert int(pairs['same label']) + int(pairs['other label']) == 40 * 56


def test_pairs_are_split_by_labels():
    script = importlib.import_module('show_similarities')
    query, key, queue = (
        functional.normalize(torch.randn(n, 4), dim=1) for n in (2, 2, 4)
    )
    groups = script.split(
        *(query, key, torch.tensor([1, -1])),
        *(queue, torch.tensor([1, 2, -1, 1])),
    )
    scores = query @ queue.T
    wanted = {
        'own key': (query * key).sum(1),
        'same label': scores[0, [0, 3]],
        'other label': torch.cat([scores[0, [1]], scores[1, [0, 1, 3]]]),
        'unlabeled key': scores[:, 2],
    }
    assert set(groups) == set(wanted)
    for name, values in wanted.items():
        torch.testing.assert_close(groups[name], values)


CHANGED = ['{config}', 'none', '--batches', '1', '--cfg-options']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['{config}', 'gone.pth'], 'gone.pth'),
        (['{config}', 'none', '--batches', '0'], '--batches must be'),
        (['{supervised}', 'none'], 'with UniMoCo'),
        (['{config}', 'none', '--device', 'gpu'], '--device gpu: '),
        (['{config}', 'none', '--device', 'xpu'], '--device xpu: '),
        ([*CHANGED, 'head.temperature=1'], "no field 'head'"),
        ([*CHANGED, 'model.head.temp=1'], 'takes no argument'),
        ([*CHANGED, 'model.type.x=1'], '--cfg-options: '),
        ([*CHANGED, 'model.type=UniMoC'], 'model: UniMoC'),
        ([*CHANGED, 'train_dataloader.batch_size=big'], 'train_dataloader: '),
    ],
)
def test_mistakes_are_one_line(
    tmp_path, narrow, monkeypatch, capsys, arguments, message
):
    supervised = ROOT / 'configs/demo/resnet18_supervised_fmnist.py'
    arguments = [
        x.format(config=narrow[0], supervised=supervised) for x in arguments
    ]
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, 'show_neighbours', *arguments) == 1
    assert re.search(f'^error: .*{message}', capsys.readouterr().err, re.M)
