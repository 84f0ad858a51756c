"""Unusual images are read correctly, broken ones are rejected by name."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from mmcv.transforms import Compose, LoadImageFromFile
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from torch.utils.data import DataLoader

from mmunimoco.datasets.decoding import (
    MAX_PIXELS,
    decode,
    decode_whole,
    read_header,
)
from mmunimoco.datasets.image_checks import BrokenImageError

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (40, 50, 3), np.uint8)
PICTURE = Image.fromarray(NOISE)
GRAY = PICTURE.convert('L')
SMOOTH = Image.fromarray(NOISE[:6, :8]).resize((400, 300), Image.BICUBIC)
MODULE = 'mmunimoco.datasets'
SIZE = dict(scale=16, crop_ratio_range=(0.2, 1.0))


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def animate(kind, **options):
    others = [Image.fromarray(255 - NOISE), GRAY.convert('RGB')]
    return encode(
        PICTURE, kind, save_all=True, append_images=others, **options
    )


def encode_16_bit(image, kind='.png'):
    wide = np.minimum(np.asarray(image).astype(int) * 257 + 3, 65535)
    if wide.ndim == 3:
        wide = wide[..., ::-1]
    return cv2.imencode(kind, wide.astype(np.uint16))[1].tobytes()


def by_pillow(content):
    """Pixels from Pillow, an independent decoder."""
    return np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))


EXIF = Image.Exif()
EXIF[0x0112] = 6  # turned by a quarter
JPEG = encode(SMOOTH, 'JPEG', quality=95)
READ = {
    'one.png': (encode(PICTURE.crop((0, 0, 1, 1)), 'PNG'), NOISE[:1, :1]),
    'one.jpg': (encode(PICTURE.crop((0, 0, 1, 1)), 'JPEG'), None),
    'row.png': (encode(PICTURE.crop((0, 0, 50, 1)), 'PNG'), NOISE[:1]),
    'gray.png': (encode(GRAY, 'PNG'), GRAY),
    'gray.jpg': (encode(GRAY, 'JPEG'), None),
    'one_bit.png': (encode(GRAY.convert('1'), 'PNG'), GRAY.convert('1')),
    'gray_alpha.png': (encode(PICTURE.convert('LA'), 'PNG'), GRAY),
    'alpha.png': (
        encode(Image.fromarray(np.dstack([NOISE, NOISE[..., 0]])), 'PNG'),
        NOISE,
    ),
    'cmyk.jpg': (encode(SMOOTH.convert('CMYK'), 'JPEG', quality=95), None),
    'progressive.jpg': (encode(SMOOTH, 'JPEG', progressive=True), None),
    'restarts.jpg': (encode(SMOOTH, 'JPEG', restart_marker_rows=1), None),
    'wide_gray.png': (encode_16_bit(GRAY), GRAY),
    'wide.png': (encode_16_bit(PICTURE), NOISE),
    'wide_gray.tif': (encode_16_bit(GRAY, '.tif'), GRAY),
    'plain.webp': (encode(PICTURE, 'WEBP', lossless=True), NOISE),
    'turned.webp': (
        encode(PICTURE, 'WEBP', lossless=True, exif=EXIF),
        # OpenCV turns this kind since version 5.
        np.rot90(NOISE, 3) if int(cv2.__version__[0]) >= 5 else NOISE,
    ),
    'turned.png': (encode(PICTURE, 'PNG', exif=EXIF), np.rot90(NOISE, 3)),
    'moving.webp': (animate('WEBP', lossless=True), NOISE),
    'moving.png': (animate('PNG'), NOISE),
    'moving.gif': (animate('GIF'), None),
    'plain.bmp': (encode(PICTURE, 'BMP'), NOISE),
    'wrong_name.jpg': (encode(PICTURE, 'PNG'), NOISE),
    # A video or a second image after the end, and bytes of an editor.
    'motion.jpg': (JPEG + b'\0\0\0\x18ftypmp42' + 50 * b'\xff\xd1a', None),
    'two_images.jpg': (JPEG + JPEG[: len(JPEG) // 2], None),
    # Fill bytes between segments.
    'filled.jpg': (JPEG[:2] + b'\xff\xff' + JPEG[2:], None),
    'odd_end.jpg': (JPEG + b'\xff\xd9\0\0\r\n', None),
}


def load(path, pipeline):
    return pipeline(dict(img_path=str(path)))


def plain(**options):
    return TRANSFORMS.build(dict(type='CheckedLoadImageFromFile', **options))


def fast(**options):
    return TRANSFORMS.build(dict(type='LoadTwoCrops', **SIZE, **options))


def evaluation():
    """An evaluation pipeline."""
    return Compose(
        [
            dict(type='CheckedLoadImageFromFile'),
            dict(type='ResizeEdge', scale=24, edge='short', backend='pillow'),
            dict(type='CenterCrop', crop_size=16),
            dict(type='PackInputs'),
        ]
    )


@pytest.mark.parametrize('name', READ)
def test_unusual_images(tmp_path, monkeypatch, name):
    content, wanted = READ[name]
    path = tmp_path / name
    path.write_bytes(content)
    if wanted is None:
        wanted = by_pillow(content)
    elif isinstance(wanted, Image.Image):
        wanted = np.asarray(wanted.convert('RGB'))
    image = load(path, plain())['img']
    assert image.dtype == np.uint8 and image.shape == wanted.shape
    assert abs(image[..., ::-1].astype(int) - wanted).max() <= 1
    # LoadTwoCrops cuts the same crops from the same image.
    monkeypatch.setattr(f'{MODULE}.load_two_crops._REDUCTIONS', ())
    crop = dict(type='RandomResizedCrop', backend='cv2', **SIZE)
    np.random.seed(0)
    expected = load(
        path, Compose([dict(type='CheckedLoadImageFromFile'), crop])
    )
    np.random.seed(0)
    view = load(path, fast(antialias=False))['img'][0]
    assert view.shape == (16, 16, 3) and view.dtype == np.uint8
    assert abs(view.astype(int) - expected['img']).max() <= 1
    assert load(path, evaluation())['inputs'].shape == (3, 16, 16)


@pytest.mark.parametrize('color', ['color', 'grayscale'])
@pytest.mark.parametrize('name', READ)
def test_pillow_gives_the_pixels_of_opencv(tmp_path, name, color):
    path = tmp_path / name
    path.write_bytes(READ[name][0])
    if (name, color) == ('moving.gif', 'grayscale'):
        content = np.frombuffer(READ[name][0], np.uint8)
        if cv2.imdecode(content, cv2.IMREAD_GRAYSCALE) is None:
            pytest.skip('this OpenCV reads GIF files in color only')
    expected, got = (
        load(path, plain(color_type=color, imdecode_backend=backend))['img']
        for backend in ('cv2', 'pillow')
    )
    assert got.dtype == np.uint8 and got.shape == expected.shape
    # Pillow gives gray and CMYK other roundings.
    assert abs(got.astype(int) - expected).max() <= 4


def test_tifffile_is_refused():
    with pytest.raises(ValueError, match="imdecode_backend='cv2', or color_t"):
        plain(imdecode_backend='tifffile')
    plain(imdecode_backend='tifffile', color_type='unchanged')


def test_turbojpeg_gets_only_what_it_decodes_alike():
    load = plain(imdecode_backend='turbojpeg')
    rotated = encode(SMOOTH, 'JPEG', exif=EXIF)
    wanted = {rotated: 'cv2', JPEG: 'turbojpeg'}
    for content, backend in wanted.items():
        assert load._backend_for(read_header(content)) == backend


def patched(content, place, patch):
    damaged = bytearray(content)
    damaged[place : place + len(patch)] = patch
    return bytes(damaged)


HALF = len(JPEG) // 2
BROKEN = {
    'empty.jpg': b'',
    'text.jpg': b'this is no image at all',
    'half.jpg': JPEG[:HALF],
    'no_end.jpg': JPEG[:-2],
    'header.jpg': JPEG[:30],
    'thumbnail.jpg': JPEG[:2]
    # The end marker of a thumbnail is not the end of the image.
    + b'\xff\xe1\x00\x06\xff\xd9ab'
    + JPEG[2:HALF],
    'zeros.jpg': patched(JPEG, HALF, bytes(len(JPEG) - HALF)),
    'overwritten.jpg': patched(
        JPEG, HALF, np.random.default_rng(1).bytes(3000)
    ),
    'half.png': encode(PICTURE, 'PNG')[:3000],
    'flipped.png': patched(encode(PICTURE, 'PNG'), 3000, b'\x00\x01\x02'),
    'half_wide.png': encode_16_bit(PICTURE)[:3000],
    'half.gif': animate('GIF')[:1500],
    'half.webp': animate('WEBP', lossless=True)[:6000],
    'head.webp': animate('WEBP')[:18],
    'half.bmp': encode(PICTURE, 'BMP')[:4000],
    'half.tif': encode(PICTURE, 'TIFF')[:4000],
    'float.tif': encode(Image.fromarray(np.float32(NOISE[..., 0])), 'TIFF'),
}


@pytest.mark.parametrize('name', BROKEN)
def test_broken_images_are_rejected_by_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(BROKEN[name])
    for transform in (plain(), fast()):
        with pytest.raises(BrokenImageError, match=str(path)):
            load(path, transform)
    assert load(path, plain(ignore_empty=True)) is None
    assert load(path, fast(ignore_empty=True)) is None


def test_folders_and_missing_files(tmp_path):
    (tmp_path / 'folder.jpg').mkdir()
    for transform in (plain(), fast()):
        with pytest.raises(IsADirectoryError, match=r'folder\.jpg'):
            load(tmp_path / 'folder.jpg', transform)
        with pytest.raises(FileNotFoundError, match=r'gone\.jpg'):
            load(tmp_path / 'gone.jpg', transform)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_no_permission(tmp_path):
    path = tmp_path / 'secret.jpg'
    path.write_bytes(JPEG)
    path.chmod(0)
    for transform in (plain(), fast()):
        with pytest.raises(PermissionError, match=r'secret\.jpg'):
            load(path, transform)


def bomb(side):
    """A PNG of a few kilobytes that claims side x side pixels."""
    header = struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0)
    chunks = (
        (b'IHDR', header),
        (b'IDAT', zlib.compress(bytes(side + 1))),
        (b'IEND', b''),
    )
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(data))
        + kind
        + data
        + struct.pack('>I', zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize('side', [20_000, 100_000])
def test_decompression_bomb(tmp_path, side):
    path = tmp_path / 'bomb.png'
    path.write_bytes(bomb(side))
    for transform in (plain(), fast(), plain(color_type='unchanged')):
        with pytest.raises(BrokenImageError) as caught:
            load(path, transform)
        message = str(caught.value)
        assert f'{path} would be decoded to {side} x {side}' in message
        assert f'max_pixels is {MAX_PIXELS}' in message


def test_huge_jpeg(tmp_path, monkeypatch):
    """Decoded at 1/8 for crops, at 1/2 as a whole."""
    path = tmp_path / 'huge.jpg'
    Image.new('L', (20_000, 20_000), 77).save(path, quality=30)
    used = []
    monkeypatch.setattr(
        f'{MODULE}.load_two_crops.decode',
        lambda *args: used.append(args[2]) or decode(*args),
    )
    view = load(path, fast())['img'][0]
    assert used == [8] and (view == 77).all()
    used.clear()
    monkeypatch.setattr(
        f'{MODULE}.decoding.decode',
        lambda *args: used.append(args[2]) or np.zeros((1, 1, 3), np.uint8),
    )
    load(path, plain())
    load(path, plain(max_pixels=4 * 10**8))
    load(path, plain(max_pixels=7 * 10**6))
    assert used == [2, 1, 8]
    for transform in (plain(max_pixels=10**6), fast(max_pixels=10**6)):
        with pytest.raises(BrokenImageError, match='to 6250000$'):
            load(path, transform)


def test_large_progressive_jpeg(tmp_path):
    """All coefficients are in memory at any reduction."""
    path = tmp_path / 'a.jpg'
    path.write_bytes(READ['progressive.jpg'][0])
    for transform in (plain(max_pixels=10**5), fast(max_pixels=10**5)):
        with pytest.raises(BrokenImageError, match='to 400 x 300 pixels'):
            load(path, transform)


def test_a_reduced_jpeg_shows_the_same():
    small = decode_whole(JPEG, 'a.jpg', max_pixels=10_000)
    assert small.shape == (75, 100, 3)
    wanted = cv2.resize(
        decode(JPEG, 'a.jpg'), (100, 75), 0, 0, 0, cv2.INTER_AREA
    )
    assert abs(small.astype(int) - wanted).mean() < 3


def test_equals_mmcv(tmp_path):
    """The same bits and keys for all options; mmcv's stays registered."""
    assert TRANSFORMS.get('LoadImageFromFile') is LoadImageFromFile
    path = tmp_path / 'a.jpg'
    path.write_bytes(JPEG)
    for options in (
        {},
        dict(to_float32=True),
        dict(color_type='grayscale'),
        dict(imdecode_backend='pillow'),
    ):
        wanted = load(path, LoadImageFromFile(**options))
        got = load(path, plain(**options))
        assert got.keys() == wanted.keys()
        assert got['img'].dtype == wanted['img'].dtype
        assert np.array_equal(got['img'], wanted['img'])
        assert got['img_shape'] == wanted['img_shape']


def test_a_worker_passes_the_name_on(tmp_path):
    (tmp_path / 'a').mkdir()
    for index, content in enumerate((JPEG, JPEG[:HALF])):
        (tmp_path / 'a' / f'{index}.jpg').write_bytes(content)
    steps = evaluation().transforms
    dataset = CustomDataset(data_prefix=str(tmp_path), pipeline=steps)
    loader = DataLoader(dataset, batch_size=2, num_workers=1, collate_fn=list)
    with pytest.raises(BrokenImageError, match=r'a/1\.jpg is a truncated'):
        list(loader)
