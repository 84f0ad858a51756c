"""Pictures of views, neighbours and similarities."""

import importlib
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from exact_runs import write_config
from matplotlib import colors, image, pyplot
from matplotlib.figure import Figure
from mmengine.config import Config
from mmpretrain.registry import DATASETS, MODELS
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


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are written."""
    figures = []
    savefig = Figure.savefig

    def observed(figure, *arguments, **options):
        figures.append(figure)
        savefig(figure, *arguments, **options)

    monkeypatch.setattr(Figure, 'savefig', observed)
    return figures


def first_batches(narrow, count, **changes):
    """Model and batches as a script gets them from the same seed."""
    shared = importlib.import_module('training_batches')
    arguments = SimpleNamespace(
        **dict(config=narrow[0], cfg_options={}, seed=0, **changes)
    )
    cfg, model = shared.load(arguments)
    return model, list(shared.batches(cfg, model, count, seed=0))


def pixels_of(axes):
    (shown,) = axes.get_images()
    return torch.as_tensor(shown.get_array())


def test_views_of_several_batches(tmp_path, narrow, monkeypatch, drawn):
    """Queries above keys, with the names of their classes."""
    shared = importlib.import_module('training_batches')
    out = tmp_path / 'views.png'
    arguments = narrow[0], '--images', 25, '--out', out
    assert call(monkeypatch, 'show_views', *arguments) == 0
    model, batches = first_batches(narrow, 2)
    rows = [drawn[0].axes[start : start + 25] for start in (0, 25)]
    for row, view in zip(rows, (0, 1), strict=True):
        views = torch.cat([batch.views[view] for batch in batches])
        wanted = shared.as_images(model, views)
        for axes, pixels in zip(row, wanted, strict=False):
            torch.testing.assert_close(pixels_of(axes), pixels)
    assert [row[0].get_ylabel() for row in rows] == ['query', 'key']
    names = [name or 'unlabeled' for batch in batches for name in batch.names]
    assert [axes.get_title() for axes in rows[0]] == names[:25]


def test_names_are_those_of_the_labels(narrow):
    _, (batch,) = first_batches(narrow, 1)
    dataset = DATASETS.build(
        Config.fromfile(narrow[0]).train_dataloader.dataset
    )
    classes = ['', *dataset.metainfo['classes']]
    labels = batch.labels.tolist()
    assert -1 in labels and max(labels) >= 0
    assert batch.names == [classes[label + 1] for label in labels]


def test_features_are_those_of_the_two_encoders(narrow):
    """In evaluation mode; the key encoder is not that of the queries."""
    shared = importlib.import_module('training_batches')
    model, (batch,) = first_batches(narrow, 1, checkpoint=narrow[1])
    saved = torch.load(narrow[1])['state_dict']
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, saved[name])
    with torch.no_grad():
        for parameter in model.encoder_k.parameters():
            parameter.mul_(0.9)
        query = model.neck(model.backbone(batch.views[0]))[0]
        key = model.encoder_k(batch.views[1])[0]
    found = shared.features(model, batch)
    for features, wanted in zip(found, (query, key), strict=True):
        torch.testing.assert_close(features, functional.normalize(wanted))
    assert not model.training
    next(model.encoder_k.parameters()).data.fill_(torch.nan)
    lost = f'the features of {len(batch.names)} images are infinite or NaN'
    with pytest.raises(ValueError, match=lost):
        shared.features(model, batch)


def test_random_weights_are_those_of_a_start(narrow):
    """The key encoder is a copy of the query's."""
    model, _ = first_batches(narrow, 0)
    assert model.is_init
    copies = model.encoder_k.module.state_dict()
    for part, name in ((model.backbone, '0.'), (model.neck, '1.')):
        for key, value in part.state_dict().items():
            torch.testing.assert_close(copies[name + key], value)


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
    plain = SimpleNamespace(_enable_normalize=False)
    plain = SimpleNamespace(data_preprocessor=plain)
    torch.testing.assert_close(shared.as_images(plain, pixels), images)


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


def test_neighbours(tmp_path, narrow, monkeypatch, drawn):
    out = tmp_path / 'neighbours.png'
    options = '--images', 2, '--batches', 1, '--out', out
    assert call(monkeypatch, 'show_neighbours', *narrow, *options) == 0
    assert image.imread(out).std() > 0.1
    shared = importlib.import_module('training_batches')
    # More images than there are.
    fewer = '--batches', 1, '--out', out, '--cfg-options'
    arguments = *narrow, *fewer, 'train_dataloader.batch_size=2'
    assert call(monkeypatch, 'show_neighbours', *arguments) == 0
    assert len(drawn[1].axes) == 2 * 3
    script = importlib.import_module('show_neighbours')
    model, (batch,) = first_batches(narrow, 1, checkpoint=narrow[1])
    query, key = shared.features(model, batch)
    keys = shared.as_images(model, batch.views[1])
    for row in range(2):
        first, *others = drawn[0].axes[10 * row : 10 * row + 10]
        assert first.get_title() == f'query {batch.names[row]}'
        order = (key @ query[row]).argsort(descending=True).tolist()
        order.remove(row)
        for axes, place in zip(others, [row, *order[:8]], strict=True):
            similarity = float(key[place] @ query[row])
            title = f'{similarity:.2f} {batch.names[place]}'
            assert axes.get_title() == title
            torch.testing.assert_close(pixels_of(axes), keys[place])
            a, b = batch.labels[[row, place]].tolist()
            colour = ['red', 'green'][a == b]
            colour = 'silver' if -1 in (a, b) else f'tab:{colour}'
            colour = 'tab:blue' if place == row else colour
            edge = axes.spines['top'].get_edgecolor()
            assert edge == colors.to_rgba(colour)
    similarity = torch.tensor([[0.9, 0.1, 0.5], [0.3, 0.8, 0.2]])
    # The own key, also if it is the nearest, stands apart.
    assert script.nearest_others(similarity, 8).tolist() == [[2, 1], [0, 2]]
    assert script.is_same(3, 3) and script.is_same(3, 4) is False
    assert script.is_same(-1, -1) is None


def test_similarities(tmp_path, narrow, monkeypatch, capsys, drawn):
    out = tmp_path / 'similarities.png'
    options = '--batches', 2, '--out', out
    assert call(monkeypatch, 'show_similarities', *narrow, *options) == 0
    assert image.imread(out).std() > 0.01
    text = capsys.readouterr().out
    found = re.findall(r'^(.*): mean (.*), (\d+) pairs', text, re.M)
    pairs = {name: count for name, _, count in found}
    shared = importlib.import_module('training_batches')
    model, batches = first_batches(narrow, 2, checkpoint=narrow[1])
    features = [shared.features(model, batch) for batch in batches]
    own = torch.cat([(query * key).sum(1) for query, key in features])
    queries = torch.cat([query for query, _ in features])
    unlabeled = queries @ model.head.queue[:8].T  # the first are
    means = {name: float(mean) for name, mean, _ in found}
    for name, values in (('own key', own), ('unlabeled key', unlabeled)):
        assert means[name] == pytest.approx(values.mean().item(), abs=6e-4)
    # Of a kind without pairs there is no line.
    arguments = narrow[0], 'none', *options
    assert call(monkeypatch, 'show_similarities', *arguments) == 0
    text = capsys.readouterr().out
    names = re.findall('^(.*): mean', text, re.M)
    assert names == ['own key', 'unlabeled key']
    assert 'queue of 64 keys, 0 labeled\n' in text
    # Densities, whose integral is one.
    for patch in drawn[0].axes[0].patches:
        values, edges, _ = patch.get_data()
        assert sum(values) * (edges[1] - edges[0]) == pytest.approx(1)
    # Keys of 64 in turn, but the first eight.
    axis = drawn[0].axes[1]
    heights = [bar.get_height() for bar in axis.patches]
    assert heights == [6] * 4 + [5] * 4 + [6] * 2
    assert axis.get_title().endswith('56 labeled, 5 to 6 of a class')
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
        *(queue, torch.tensor([1, 0, -1, 1])),
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
        (['{config}', 'part.pth'], 'part.pth .*incomplete'),
        (['{config}', 'none', '--batches', '0'], '--batches must be'),
        (['{supervised}', 'none'], 'with UniMoCo'),
        (['{config}', 'none', '--device', 'gpu'], '--device gpu: '),
        (['{config}', 'none', '--device', 'xpu'], '--device xpu: '),
        ([*CHANGED, 'head.temperature=1'], "no field 'head'"),
        ([*CHANGED, 'model.head.temp=1'], 'takes no argument'),
        (
            [
                *(*CHANGED, 'model.head.multi_label=True'),
                'model.head.num_classes=10',
            ],
            'several labels an image',
        ),
        ([*CHANGED, 'model.type.x=1'], '--cfg-options: '),
        ([*CHANGED, 'model.type=UniMoC'], 'model: UniMoC'),
        ([*CHANGED, 'train_dataloader.batch_size=big'], 'train_dataloader: '),
        (
            [*CHANGED, 'custom_hooks.7.images_on_device=True'],
            'but it is SelfSupDataPreprocessor',
        ),
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
    state = torch.load(narrow[1])['state_dict']
    del state['head.queue']
    torch.save(dict(state_dict=state), 'part.pth')
    assert call(monkeypatch, 'show_neighbours', *arguments) == 1
    assert re.search(f'^error: .*{message}', capsys.readouterr().err, re.M)
