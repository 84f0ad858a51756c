"""TwoViewAugment: distributions, order, seeds, channel orders, inputs."""

import inspect
import sys

import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from scipy import stats
from torchvision import transforms

import mmunimoco
from mmunimoco.datasets import LoadTwoCrops
from mmunimoco.models import view_operations
from mmunimoco.utils.normalization import normalization_of

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
OFF = dict(jitter_prob=0.0, gray_prob=0.0, blur_prob=0.0, flip_prob=0.0)


def build(**options):
    return MODELS.build(dict(type='TwoViewAugment', **options))


def draw_views(n=4, size=(16, 20), seed=0):
    rng = torch.Generator().manual_seed(seed)
    shape = (n, 3, *size)
    return [
        torch.randint(0, 256, shape, generator=rng).byte() for _ in range(2)
    ]


def augment(preprocessor, views, seed=0):
    torch.manual_seed(seed)
    data = dict(inputs=views, data_samples=[DataSample()])
    return preprocessor(data, training=True)['inputs']


def the_generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize('to_rgb', [False, True])
@pytest.mark.parametrize('training', [False, True])
def test_without_augmentation_it_is_mmpretrains(to_rgb, training):
    options = dict(mean=MEAN, std=STD, to_rgb=to_rgb)
    theirs = MODELS.build(dict(type='SelfSupDataPreprocessor', **options))
    inputs = draw_views() if training else draw_views()[0]
    data = dict(inputs=inputs, data_samples=[DataSample()] * 4)
    ours = build(**options, **(OFF if training else {}))
    got, expected = ours(data, training), theirs(data, training)
    if training:
        assert got['data_samples'] is data['data_samples']
    assert isinstance(got['inputs'], list) == training
    torch.testing.assert_close(
        got['inputs'], expected['inputs'], rtol=0, atol=1e-5
    )


def test_input_is_left_as_it_was():
    views = draw_views()
    before = [view.clone() for view in views]
    augment(build(mean=MEAN, std=STD, to_rgb=True), views)
    assert all(map(torch.equal, views, before))


def test_views_of_either_channel_order_undergo_the_same():
    views = draw_views()
    turned = [view.flip(1) for view in views]
    rgb = augment(build(mean=MEAN, std=STD), views)
    bgr = augment(build(mean=MEAN, std=STD, to_rgb=True), turned)
    torch.testing.assert_close(rgb, bgr)
    alias = augment(build(mean=MEAN, std=STD, bgr_to_rgb=True), turned)
    assert all(map(torch.equal, alias, bgr))
    kept = augment(build(input_order='bgr'), turned)
    plain = augment(build(), views)
    torch.testing.assert_close([view.flip(1) for view in kept], plain)
    there = augment(build(rgb_to_bgr=True), views)
    torch.testing.assert_close(there, kept)


def test_a_seed_repeats_and_views_differ():
    preprocessor = build(flip_prob=0.0)
    view = draw_views(8)[0]
    first = augment(preprocessor, [view, view])
    assert all(map(torch.equal, first, augment(preprocessor, [view, view])))
    other = augment(preprocessor, [view, view], seed=1)
    for a, b in ((first[0], first[1]), (first[0], other[0])):
        different = [not torch.equal(x, y) for x, y in zip(a, b, strict=True)]
        assert sum(different) >= 6


def test_ranks_draw_other_numbers(monkeypatch):
    drawn = []
    for rank in (0, 1):
        monkeypatch.setattr(
            view_operations, 'get_rank', lambda rank=rank: rank
        )
        torch.manual_seed(0)
        generator = view_operations.draw_generator()
        drawn.append(torch.rand(4, generator=generator))
        rest = torch.rand(4)
    assert not torch.equal(*drawn)
    torch.manual_seed(0)
    view_operations.draw_generator()
    assert torch.equal(rest, torch.rand(4))


def test_jitter_is_torchvisions_in_the_order_drawn(monkeypatch):
    """Record what is drawn; repeat it image by image."""
    drawn = {}
    for name in ('draw_chosen', 'draw_orders', 'draw_uniform'):
        original = getattr(view_operations, name)

        def record(*args, name=name, original=original):
            result = original(*args)
            drawn.setdefault(name, []).append(result)
            return result

        monkeypatch.setattr(view_operations, name, record)
    views = draw_views(16)
    ours = torch.cat(augment(build(blur_prob=0.0), views))
    flipped, jittered, gray, _ = drawn['draw_chosen']
    (orders,), factors = drawn['draw_orders'], drawn['draw_uniform']
    functional = transforms.functional
    operations = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    assert 16 < jittered.sum() < 32 and 0 < gray.sum() < 16
    for i, image in enumerate(torch.cat(views)):
        image = image.flip(2) if flipped[i] else image
        image = image / 255
        for k in orders[i].tolist() if jittered[i] else ():
            image = operations[k](image, factors[k][i].item())
        if gray[i]:
            image = functional.rgb_to_grayscale(image, 3)
        torch.testing.assert_close(
            ours[i], 255 * image, rtol=0, atol=0.1, msg=f'view {i}'
        )


def test_blur_is_torchvisions_of_the_sigma_drawn(monkeypatch):
    drawn = {}
    for name in ('draw_chosen', 'draw_uniform'):
        original = getattr(view_operations, name)

        def record(*args, name=name, original=original):
            drawn[name] = original(*args)  # the last one is the blur's
            return drawn[name]

        monkeypatch.setattr(view_operations, name, record)
    views = draw_views(8, (24, 28))
    ours = torch.cat(augment(build(**OFF | dict(blur_prob=0.5)), views))
    blurred, sigma = drawn['draw_chosen'], drawn['draw_uniform']
    assert 0 < blurred.sum() < 16 and sigma[blurred].max() > 1.5
    blur = transforms.functional.gaussian_blur
    for i, image in enumerate(torch.cat(views).float()):
        if blurred[i]:
            image = blur(image, 23, sigma[i].item())
        torch.testing.assert_close(ours[i], image, rtol=0, atol=0.1)


def test_shares_and_factors_are_the_published_ones():
    """Chosen images are binomial, factors uniform, orders equally likely."""
    n, generator = 4000, the_generator()
    preprocessor = build()
    for name, share in (
        ('jitter_prob', 0.8), ('gray_prob', 0.2), ('blur_prob', 0.5),
        ('flip_prob', 0.5),
    ):  # fmt: skip
        probability = getattr(preprocessor, name)
        chosen = view_operations.draw_chosen(n, probability, generator)
        assert stats.binomtest(int(chosen.sum()), n, share).pvalue > 0.01
    published = [(0.6, 1.4)] * 3 + [(-0.1, 0.1), (0.1, 2.0)]
    bounds = [*preprocessor.jitter, preprocessor.blur_sigma]
    for (low, high), used in zip(published, bounds, strict=True):
        drawn = view_operations.draw_uniform(n, used, generator)
        even = stats.uniform(low, high - low)
        assert stats.kstest(drawn.double().numpy(), even.cdf).pvalue > 0.01
    orders = view_operations.draw_orders(n, 4, generator)
    codes, counts = (
        (orders * torch.tensor([64, 16, 4, 1]))
        .sum(1)
        .unique(return_counts=True)
    )
    assert len(codes) == 24 and stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize(
    ('size', 'aspect'),
    [
        ((32, 32), (3 / 4, 4 / 3)),
        ((20, 60), (3 / 4, 4 / 3)),
        ((90, 30), (3 / 4, 4 / 3)),
        ((40, 60), (1.0, 2.0)),
    ],
)
def test_boxes_are_torchvisions(size, aspect):
    """Areas, shapes and places are equally distributed."""
    n, torch_seed = 3000, 0
    area = (0.2, 1.0)
    ours = view_operations.draw_boxes(n, size, area, aspect, the_generator())
    torch.manual_seed(torch_seed)
    image = torch.empty(3, *size)
    get = transforms.RandomResizedCrop.get_params
    theirs = torch.tensor([get(image, area, aspect) for _ in range(n)])
    whole = torch.tensor(size)
    assert (ours >= 0).all() and (ours == ours.round()).all()
    assert (ours[:, :2] + ours[:, 2:] <= whole).all()
    for column in range(4):
        a, b = ours[:, column].numpy(), theirs[:, column].numpy()
        assert stats.ks_2samp(a, b).pvalue > 0.01, column
    a, b = (boxes[:, 2] * boxes[:, 3] for boxes in (ours, theirs))
    assert stats.ks_2samp(a.numpy(), b.numpy()).pvalue > 0.01


@pytest.mark.parametrize('size', [(32, 32), (20, 60), (90, 30), (1, 1)])
@pytest.mark.parametrize('area', [9.0, 1e-9])
def test_box_if_none_fits_is_torchvisions(size, area):
    area, aspect = (area, area), (3 / 4, 4 / 3)
    ours = view_operations.draw_boxes(2, size, area, aspect, the_generator())
    get = transforms.RandomResizedCrop.get_params
    theirs = get(torch.empty(3, *size), area, aspect)
    assert ours.tolist() == [list(theirs)] * 2


def test_crops_whole_images():
    image = draw_views(1, (32, 32))[0]
    images = image.expand(6, -1, -1, -1)
    crop = dict(scale=32, crop_ratio_range=(1.0, 1.0),
                aspect_ratio_range=(1.0, 1.0))  # fmt: skip
    whole = augment(build(crop=crop, **OFF), images)
    torch.testing.assert_close(whole, [images.float()] * 2, rtol=0, atol=1e-3)
    views = augment(build(crop=dict(scale=(16, 24)), **OFF), images)
    assert [view.shape for view in views] == [(6, 3, 16, 24)] * 2
    assert len(torch.cat(views).unique(dim=0)) == 12
    with pytest.raises(ValueError, match='got images of 4 channels'):
        augment(build(crop=crop), torch.zeros(2, 4, 32, 32).byte())


def test_crops_have_the_options_of_load_two_crops(monkeypatch):
    drawn, original = [], view_operations.draw_boxes

    def record(n, size, area, aspect, generator, attempts):
        drawn.append((area, aspect, attempts))
        return original(n, size, area, aspect, generator, attempts)

    monkeypatch.setattr(view_operations, 'draw_boxes', record)
    names = 'crop_ratio_range', 'aspect_ratio_range', 'max_attempts'
    theirs = inspect.signature(LoadTwoCrops).parameters
    expected = [
        tuple(theirs[name].default for name in names),
        ((0.5, 0.6), (1.0, 1.5), 3),
    ]
    for options in ({}, dict(zip(names, expected[1], strict=True))):
        preprocessor = build(crop=dict(scale=8, **options))
        augment(preprocessor, draw_views()[0])
    assert drawn == expected


def test_indices_stand_for_images():
    images = torch.cat(draw_views(5, (32, 32)))
    preprocessor = build(crop=dict(scale=32))
    with pytest.raises(ValueError, match='images_on_device'):
        augment(preprocessor, torch.arange(3))
    preprocessor.keep_images(images)
    chosen = torch.tensor([7, 0, 9, 7])
    got = augment(preprocessor, chosen)
    expected = augment(build(crop=dict(scale=32)), images[chosen])
    assert all(map(torch.equal, got, expected))
    assert not preprocessor.state_dict()


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_dtype_is_that_of_the_views_alone(dtype):
    options = dict(mean=MEAN, std=STD, to_rgb=True)
    views = draw_views()
    got = augment(build(**options, dtype=dtype), views)
    expected = augment(build(**options), views)
    expected = [view.to(getattr(torch, dtype)) for view in expected]
    assert all(map(torch.equal, got, expected))
    data = dict(inputs=views[0], data_samples=None)
    assert build(**options, dtype=dtype)(data)['inputs'].dtype == torch.float32


def test_autocast_of_the_model_changes_nothing():
    images = draw_views(6, (32, 32))[0]
    preprocessor = build(mean=MEAN, std=STD, crop=dict(scale=32))
    expected = augment(preprocessor, images)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got = augment(preprocessor, images)
    assert all(map(torch.equal, got, expected))


def test_fused_takes_the_plain_operations_without_a_gpu():
    pytest.importorskip('triton', minversion='3.0')
    views = draw_views()
    got = augment(build(fused=True), views)
    assert all(map(torch.equal, got, augment(build(), views)))


def test_fused_needs_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, 'triton', None)
    monkeypatch.delitem(
        sys.modules, 'mmunimoco.models.fused_views', raising=False
    )
    monkeypatch.delattr(mmunimoco.models, 'fused_views', raising=False)
    with pytest.raises(ValueError, match='needs Triton 3.*fused=False'):
        build(fused=True)


def test_normalisation_is_found():
    config = dict(type='TwoViewAugment', mean=MEAN, std=STD, to_rgb=True)
    theirs = dict(config, type='SelfSupDataPreprocessor')
    assert normalization_of(config).agrees_with(normalization_of(theirs))


@pytest.mark.parametrize(
    ('inputs', 'told'),
    [
        (torch.zeros(2, 3, 8, 8).byte(), 'one tensor, not two views'),
        ([torch.zeros(2, 3, 8, 8).byte()], 'needs two views'),
        ([torch.zeros(3, 8, 8).byte()] * 2, 'default_collate'),
        ([torch.zeros(2, 4, 8, 8).byte()] * 2, 'got images of 4 channels'),
        (
            [torch.zeros(2, 3, 8, n).byte() for n in (8, 9)],
            r'two views of one size.*8, 8\).*8, 9\)',
        ),
    ],
)
def test_wrong_inputs(inputs, told):
    with pytest.raises(ValueError, match=told):
        build()(dict(inputs=inputs, data_samples=None), training=True)


@pytest.mark.parametrize(
    'options',
    [
        dict(jitter_prob=1.2),
        dict(flip_prob=-0.1),
        dict(hue=0.6),
        dict(contrast=-1),
        dict(blur_sigma=(2.0, 0.1)),
        dict(blur_sigma=(0.0, 1.0)),
        dict(dtype='float64'),
        dict(mean=[1, 2, 3, 4], std=[1, 2, 3, 4]),
        dict(input_order='gbr'),
    ],
)
def test_wrong_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        build(**options)
