"""Images and masks in folders, as mmseg's pipelines take them."""

import pytest
from mmpretrain.registry import DATASETS

CLASSES = ('background', 'cat')


@pytest.fixture
def build(tmp_path):
    """A function that builds a dataset of empty files with these names."""

    def build(images, masks, **options):
        for folder, names in (('images', images), ('masks', masks)):
            (tmp_path / folder).mkdir()
            for name in names:
                path = tmp_path / folder / name
                path.parent.mkdir(exist_ok=True)
                path.touch()
        return DATASETS.build(
            dict(
                type='MaskFolders',
                data_root=str(tmp_path),
                data_prefix=dict(img_path='images', seg_map_path='masks'),
                metainfo=dict(classes=CLASSES),
                **options,
            )
        )

    return build


@pytest.mark.parametrize('suffix', ['.JPG', '.png', '.tif'])
def test_any_image_format(build, tmp_path, suffix):
    images = [f'b{suffix}', f'sub/a.1{suffix}']
    dataset = build([*images, 'notes.txt', '.hidden.png'],
                    ['b.png', 'sub/a.1.PNG', 'more.png'])  # fmt: skip
    found = [dataset.get_data_info(i) for i in range(len(dataset))]
    paths = [(info['img_path'], info['seg_map_path']) for info in found]
    assert paths == [
        (f'{tmp_path}/images/b{suffix}', f'{tmp_path}/masks/b.png'),
        (
            f'{tmp_path}/images/sub/a.1{suffix}',
            f'{tmp_path}/masks/sub/a.1.PNG',
        ),
    ]
    assert found[0]['label_map'] is None and found[0]['seg_fields'] == []
    assert found[0]['reduce_zero_label'] is False
    assert dataset.metainfo['classes'] == CLASSES
    assert len(dataset.metainfo['palette']) == 2


def test_reduce_zero_label(build):
    dataset = build(['a.jpg'], ['a.png'], reduce_zero_label=True)
    assert dataset.get_data_info(0)['reduce_zero_label'] is True


def test_images_that_would_share_a_mask(build):
    with pytest.raises(ValueError, match='has both a.jpg and a.png'):
        build(['a.jpg', 'a.png'], ['a.png'])


def test_missing_mask(build):
    message = '1 of the 2 images .* which has 1 .png files: missing are b.png'
    with pytest.raises(FileNotFoundError, match=message):
        build(['a.jpg', 'b.jpg'], ['a.png', 'b.bmp'])
