"""Views decoded on the device equal those that a worker decodes."""

import io

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from mmpretrain.registry import MODELS, TRANSFORMS
from PIL import Image

import mmunimoco  # noqa: F401
from mmunimoco.datasets import collate_encoded
from mmunimoco.datasets.decoding import read_header
from mmunimoco.datasets.encoded_crops import check_collate
from mmunimoco.models import encoded_images

SCALE = 24
PLAIN = ('plain.jpg', 'wide.jpg', 'full_colour.jpg', 'small.jpg')
# What the worker decodes, each for another reason.
OTHERS = ('gray.jpg', 'cmyk.jpg', 'progressive.jpg', 'turned.jpg', 'rgb.jpg',
          'large.jpg', 'picture.png')  # fmt: skip


def draw_picture(size=(60, 45), mode='RGB', seed=0):
    """A smooth picture of (width, height), so interpolation errs little."""
    rng = np.random.default_rng(seed)
    noise = Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8))
    return noise.resize(size, Image.BICUBIC).convert(mode)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('files')
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {
        'full_colour.jpg': dict(subsampling=0),
        'progressive.jpg': dict(progressive=True),
        'turned.jpg': dict(exif=exif),
        'rgb.jpg': dict(keep_rgb=True),
    }
    sizes = {
        'wide.jpg': (90, 30),
        'small.jpg': (20, 17),
        'large.jpg': (71, 70),
    }
    modes = {'gray.jpg': 'L', 'cmyk.jpg': 'CMYK'}
    for name in PLAIN + OTHERS:
        image = draw_picture(sizes.get(name, (60, 45)), modes.get(name, 'RGB'))
        image.save(root / name, **options.get(name, {}))
    return root


def load(kind, root, names, **options):
    """Batch of the views of files, from the same random numbers."""
    transform = TRANSFORMS.build(dict(type=kind, scale=SCALE, **options))
    pack = TRANSFORMS.build(dict(type='PackInputs'))
    np.random.seed(0)
    samples = [
        pack(transform(dict(img_path=str(root / name), gt_label=index)))
        for index, name in enumerate(names)
    ]
    return collate_encoded(samples)


def encode(root, names):
    return load('LoadEncodedCrops', root, names, max_device_pixels=70 * 70)


def both(root, names, **options):
    """(2N, 3, h, w) views from either path."""
    batch = encode(root, names)
    if isinstance(batch['inputs'], dict):
        device = torch.device('cpu')
        got = encoded_images.decode_crops(batch['inputs'], device)
    else:
        got = torch.cat(batch['inputs'])
    return got, torch.cat(load('LoadTwoCrops', root, names)['inputs'])


def test_views_equal_those_of_the_worker(folder):
    names = [x for pair in zip(PLAIN, OTHERS) for x in pair]  # noqa: B905
    names += OTHERS[len(PLAIN) :]
    inputs = encode(folder, names)['inputs']
    sent = [names[row] for row in inputs['rows']]
    assert sent == list(PLAIN) and len(inputs['views']) == len(OTHERS)
    got, expected = both(folder, names)
    assert got.shape == expected.shape and got.dtype == torch.uint8
    difference = (got.int() - expected.int()).abs()
    # Rounding of a fixed-point filter; what a worker decodes is the same.
    assert difference.max() <= 1
    decoded = torch.tensor([name in OTHERS for name in names]).repeat(2)
    assert difference[decoded].max() == 0


# With the second, each image is larger than a group may be.
@pytest.mark.parametrize('limit', [6000, 9])
def test_groups_of_limited_memory(folder, monkeypatch, limit):
    names = PLAIN * 3
    whole, _ = both(folder, names)
    used = []
    pad = encoded_images._pad
    monkeypatch.setattr(encoded_images, 'MAX_PIXELS', limit)
    monkeypatch.setattr(
        encoded_images, '_pad', lambda x: used.append(pad(x)) or used[-1]
    )
    parts, _ = both(folder, names)
    # One summand more or less moves a sum by a rounding error.
    assert (parts.int() - whole.int()).abs().max() <= 1
    assert len(used) > 3 and sum(map(len, used)) == len(names)
    assert all(len(x) == 1 or x[:, 0].numel() <= limit for x in used)


def test_batches_without_encoded_images(folder):
    batch = encode(folder, OTHERS)
    assert isinstance(batch['inputs'], list)
    got, expected = both(folder, OTHERS)
    assert torch.equal(got, expected)


def test_what_the_device_cannot_decode(folder, monkeypatch):
    """It is decoded on the CPU; what nothing decodes is an error."""
    names = PLAIN[:2]
    inputs = encode(folder, names)['inputs']
    second = inputs['content'][inputs['offsets'][1] :]
    calls = []

    def decode_on(contents, device):
        calls.append((len(contents), device.type))
        if device.type == 'meta' and any(
            len(x) == len(second) for x in contents
        ):
            raise RuntimeError('nvjpegDecode failed')
        return decode(contents, torch.device('cpu'))

    decode = encoded_images._decode_on
    monkeypatch.setattr(encoded_images, '_decode_on', decode_on)
    monkeypatch.setattr(torch.Tensor, 'to', lambda x, *_, **__: x)
    device = torch.device('meta')
    got = encoded_images._decode(inputs, [0, 1], device)
    # Both at once, then one by one, and the second on the CPU.
    assert calls == [(2, 'meta'), (1, 'meta'), (1, 'meta'), (1, 'cpu')]
    for name, image in zip(names, got, strict=True):
        pixels = np.array(Image.open(folder / name))
        assert (
            abs(image.permute(1, 2, 0).numpy().astype(int) - pixels).max() <= 1
        )


@pytest.mark.parametrize('transform', [0, 1])
def test_colours_that_adobe_says_are_rgb(folder, transform):
    content = (folder / 'plain.jpg').read_bytes()
    marker = b'\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0' + bytes([transform])
    content = content[:2] + marker + content[2:]
    assert read_header(content).on_device == bool(transform)


def test_damage_that_only_decoding_shows(folder, tmp_path):
    content = (folder / 'plain.jpg').read_bytes()
    start = content.index(b'\xff\xc4')  # a Huffman table: more codes than fit
    path = tmp_path / 'damaged.jpg'
    path.write_bytes(content[: start + 5] + b'\xff' + content[start + 6 :])
    assert read_header(path.read_bytes()).on_device
    with pytest.raises(ValueError, match='damaged.jpg is a damaged JPEG'):
        both(tmp_path, ['damaged.jpg'])


def build_loader(root, kind, collate):
    dataset = dict(
        type='CustomDataset', data_prefix=str(root), with_label=True,
        pipeline=[dict(type=kind, scale=SCALE), dict(type='PackInputs')],
    )  # fmt: skip
    labels = dict(type='PartialLabels', dataset=dataset, label_ratio=0.5)
    return Runner.build_dataloader(
        dict(
            batch_size=6,
            num_workers=1,
            persistent_workers=True,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type=collate),
            dataset=dict(
                type='SkipBrokenImages', max_broken=2, dataset=labels
            ),
        ),
        seed=0,
    )


def test_from_files_to_augmented_views(tmp_path):
    """Labels, broken files and augmentation are those of the other path."""
    for label in range(2):
        (tmp_path / f'class_{label}').mkdir()
        for index in range(3):
            file = io.BytesIO()
            draw_picture(seed=index).save(file, 'JPEG')
            short = 99 if (label, index) == (0, 1) else 0  # a broken file
            path = tmp_path / f'class_{label}/{index}.jpg'
            path.write_bytes(file.getvalue()[: -short or None])
    augment = MODELS.build(
        dict(type='TwoViewAugment', mean=[120] * 3, std=[60] * 3, to_rgb=True)
    )
    found = {}
    for kind, collate in (
        ('LoadEncodedCrops', 'collate_encoded'),
        ('LoadTwoCrops', 'collate_views'),
    ):
        batch = next(iter(build_loader(tmp_path, kind, collate)))
        assert isinstance(batch['inputs'], dict) == (collate[8] == 'e')
        torch.manual_seed(0)
        found[kind] = augment(batch, training=True)
    ours, theirs = found.values()
    for view, other in zip(ours['inputs'], theirs['inputs'], strict=True):
        # A gray level is 1/60; hue amplifies it.
        assert (view - other).abs().max() < 0.2
        assert (view - other).abs().mean() < 0.01
    pairs = list(
        zip(ours['data_samples'], theirs['data_samples'], strict=True)
    )
    assert len(pairs) == 6
    for sample, other in pairs:
        assert sample.get('gt_label', None) == other.get('gt_label', None)
        assert sample.img_path == other.img_path
        assert sample.img_shape == other.img_shape
    (broken,) = (x.replaced_files for x, _ in pairs if 'replaced_files' in x)
    assert '1.jpg' in next(iter(broken))


def test_forgotten_collate(tmp_path):
    draw_picture().save(tmp_path / '0.jpg')
    (tmp_path / 'a').mkdir()
    draw_picture().save(tmp_path / 'a/0.jpg')
    check_collate(build_loader(tmp_path, 'LoadTwoCrops', 'collate_views'))
    check_collate(
        build_loader(tmp_path, 'LoadEncodedCrops', 'collate_encoded')
    )
    with pytest.raises(ValueError, match='collate_fn=dict.*collate_encoded'):
        check_collate(
            build_loader(tmp_path, 'LoadEncodedCrops', 'default_collate')
        )


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(antialias=False), 'remove antialias=False'),
        (dict(max_device_pixels=-1), 'max_device_pixels must be 0 or more'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        TRANSFORMS.build(dict(type='LoadEncodedCrops', **options))
