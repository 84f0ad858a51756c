"""LoadTwoCrops equals loading and cropping by mmpretrain."""

import io

import cv2
import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.fileio import backends
from mmpretrain.registry import TRANSFORMS
from PIL import Image

from mmunimoco.datasets import decoding
from mmunimoco.datasets.decoding import ImageHeader, decode, read_header
from mmunimoco.datasets.image_checks import BrokenImageError
from mmunimoco.datasets.load_two_crops import cut

CROP = dict(scale=24, crop_ratio_range=(0.2, 1.0))


def draw_picture(size=(60, 45), mode='RGB', seed=0):
    """A smooth picture of (width, height), so interpolation errs little."""
    rng = np.random.default_rng(seed)
    noise = Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8))
    return noise.resize(size, Image.BICUBIC).convert(mode)


def published(backend='pillow'):
    return Compose(
        [
            dict(type='CheckedLoadImageFromFile'),
            dict(
                type='MultiView',
                num_views=2,
                transforms=[
                    [dict(type='RandomResizedCrop', backend=backend, **CROP)]
                ],
            ),
        ]
    )


def fast(**options):
    return TRANSFORMS.build(dict(type='LoadTwoCrops', **CROP | options))


def run(pipeline, path, seed=0):
    np.random.seed(seed)
    return pipeline(dict(img_path=str(path), gt_label=1))


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


FILES = {
    'odd.jpg': dict(size=(61, 47)),
    'gray.jpg': dict(mode='L'),
    'palette.png': dict(mode='P'),
    'small.jpg': dict(size=(14, 11)),
    'flat.jpg': dict(size=(200, 20)),
}


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
def test_equals_mmpretrain(tmp_path, name, backend):
    draw_picture(**FILES[name]).save(tmp_path / name)
    expected = run(published(backend), tmp_path / name)
    got = run(fast(antialias=backend == 'pillow'), tmp_path / name)
    assert got.keys() == expected.keys()
    for key in ('img_shape', 'ori_shape', 'gt_label', 'img_path'):
        assert got[key] == expected[key]
    assert len(got['img']) == 2
    for view, other in zip(got['img'], expected['img'], strict=True):
        assert view.shape == other.shape and view.dtype == np.uint8
        difference = view.astype(int) - other
        assert abs(difference).max() <= 1


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_rotation(tmp_path, orientation):
    path = tmp_path / 'turned.jpg'
    draw_picture().save(path, exif=exif_of(orientation))
    expected, got = run(published(), path), run(fast(), path)
    assert got['img_shape'] == expected['img_shape']
    for view, other in zip(got['img'], expected['img'], strict=True):
        assert abs(view.astype(int) - other).max() <= 1
    # Smaller views come from an image that is decoded reduced.
    small = run(fast(scale=9), path)['img']
    whole = cv2.resize(got['img'][0], (9, 9), interpolation=cv2.INTER_AREA)
    assert abs(small[0].astype(int) - whole).mean() < 30


@pytest.mark.parametrize(
    ('size', 'scale', 'reduction'),
    [((60, 45), 24, 1), ((300, 301), 60, 2), ((701, 800), 80, 4),
     ((1500, 1800), 40, 8)],
)  # fmt: skip
def test_reduction(tmp_path, monkeypatch, size, scale, reduction):
    used = []

    def record(content, name, reduction=1, plain=False):
        used.append(reduction)
        return decode(content, name, reduction, plain)

    monkeypatch.setattr('mmunimoco.datasets.load_two_crops.decode', record)
    path = tmp_path / 'photo.jpg'
    draw_picture(size).save(path, quality=95)
    transform = fast(scale=scale)
    for seed in range(12):
        result = run(transform, path, seed)
        np.random.seed(seed)
        boxes = transform._draw(result['img_shape'])
        # Largest of 1, 2, 4, 8 that leaves both crops their size.
        least = min(min(box[2:]) for box in boxes)
        assert used[-1] == max(r for r in (1, 2, 4, 8) if r * scale <= least)
    assert reduction in used


def test_reduced_views_are_close_to_the_published_ones(tmp_path):
    """Closer than OpenCV's bilinear filter, by mean absolute difference."""
    path = tmp_path / 'photo.jpg'
    rng = np.random.default_rng(0)
    fine = Image.fromarray(rng.integers(0, 256, (160, 200, 3), np.uint8))
    fine.resize((800, 640), Image.BICUBIC).save(path, quality=95)
    plain = published('cv2')
    errors = dict(ours=[], opencv=[])
    for seed in range(8):
        expected = run(published(), path, seed)['img']
        for name, pipeline in dict(ours=fast(), opencv=plain).items():
            for view, other in zip(
                run(pipeline, path, seed)['img'], expected, strict=True
            ):
                errors[name].append(abs(view.astype(int) - other).mean())
    ours, opencv = (np.mean(errors[name]) for name in ('ours', 'opencv'))
    assert ours < 0.4 * opencv, (ours, opencv)


def test_wrong_size_in_the_header(tmp_path, monkeypatch):
    path = tmp_path / 'photo.jpg'
    draw_picture((400, 240)).save(path)
    monkeypatch.setattr(
        'mmunimoco.datasets.load_two_crops.read_header',
        lambda content: ImageHeader(True, (400, 240), True, True),
    )
    result = run(fast(), path)
    assert result['img_shape'] == (240, 400)
    assert [view.shape for view in result['img']] == [(24, 24, 3)] * 2


def encode(mode='RGB', size=(61, 47), **options):
    buffer = io.BytesIO()
    draw_picture(size, mode).save(buffer, 'JPEG', quality=90, **options)
    return buffer.getvalue()


@pytest.mark.parametrize('mode', ['RGB', 'L'])
@pytest.mark.parametrize('subsampling', [0, 1, 2])
@pytest.mark.parametrize('progressive', [False, True])
def test_simplejpeg_and_opencv_give_the_same_pixels(
    mode, subsampling, progressive, monkeypatch
):
    pytest.importorskip('simplejpeg')
    content = encode(mode, subsampling=subsampling, progressive=progressive)
    header = read_header(content)
    assert header.plain and header.reducible != progressive
    for reduction in (1, 2, 4, 8):
        reduced = tuple(-(-side // reduction) for side in header.size)
        assert decode(content, '', reduction).shape[:2] == reduced
    image = decode(content, '', plain=True)
    monkeypatch.setattr(decoding, 'simplejpeg', None)
    assert np.array_equal(image, decode(content, '', plain=True))


@pytest.mark.parametrize('missing', [1, 2, 3, 50])
def test_truncated_jpegs(missing):
    """Strict decoding by simplejpeg rejects them, too."""
    content = encode()[:-missing]
    with pytest.raises(BrokenImageError, match='photo.jpg'):
        decode(content, 'photo.jpg', plain=True)


@pytest.mark.parametrize('installed', [False, True])
def test_jpegs_that_simplejpeg_does_not_decode(installed, monkeypatch):
    if installed:
        pytest.importorskip('simplejpeg')
    else:
        monkeypatch.setattr(decoding, 'simplejpeg', None)
    assert not read_header(encode('CMYK')).plain
    assert not read_header(encode(exif=exif_of(6))).plain
    assert read_header(encode(exif=exif_of(1))).plain
    # A restart marker out of order is only a warning of libjpeg.
    whole = encode()
    damaged = whole[:-300] + b'\xff\xd3' + whole[-298:]
    image = decode(damaged, 'damaged', plain=True)
    assert np.array_equal(image, decode(damaged, 'damaged'))


def test_a_box_at_the_edge_of_a_reduced_image():
    """Its last rows round to one beyond the image."""
    pixels = np.arange(4)[:, None].repeat(4, axis=1)
    part = cut(pixels, (10, 10), (9, 0, 1, 10))
    assert part.shape == (1, 4, 1) and (part == 3).all()


@pytest.mark.parametrize('antialias', [False, True])
def test_images_in_memory(antialias):
    image = np.asarray(draw_picture((32, 32)))
    np.random.seed(0)
    transform = fast(antialias=antialias)
    got = transform(dict(img=image))
    np.random.seed(0)
    steps = published('pillow' if antialias else 'cv2').transforms[1:]
    expected = Compose(steps)(dict(img=image))
    for view, other in zip(got['img'], expected['img'], strict=True):
        assert abs(view.astype(int) - other).max() <= 1
    gray = transform(dict(img=image[..., 0]))['img']
    assert [view.shape for view in gray] == [(24, 24, 1)] * 2


@pytest.mark.parametrize('antialias', [False, True])
def test_views_pack_without_a_copy(tmp_path, antialias):
    draw_picture().save(tmp_path / 'a.jpg')
    result = run(fast(antialias=antialias), tmp_path / 'a.jpg')
    pointers = [view.ctypes.data for view in result['img']]
    views = [view.copy() for view in result['img']]
    packed = TRANSFORMS.build(dict(type='PackInputs'))(result)
    for tensor, view, pointer in zip(
        packed['inputs'], views, pointers, strict=True
    ):
        assert tensor.data_ptr() == pointer
        assert np.array_equal(tensor.permute(1, 2, 0).numpy(), view)


def test_backend_args(monkeypatch):
    """A backend of mmengine may return None for a missing file."""
    _, encoded = cv2.imencode('.jpg', np.asarray(draw_picture()))
    stored = {'a.jpg': encoded.tobytes()}

    class Storage(backends.BaseStorageBackend):
        def get(self, filepath):
            return stored.get(str(filepath))

        def get_text(self, filepath):
            raise NotImplementedError

    monkeypatch.setitem(backends.registry_utils.backends, 'stored', Storage)
    transform = fast(backend_args=dict(backend='stored'))
    assert len(run(transform, 'a.jpg')['img']) == 2
    with pytest.raises(FileNotFoundError, match=r"'b\.jpg' is not in"):
        run(transform, 'b.jpg')
    assert 'stored' in repr(transform)
