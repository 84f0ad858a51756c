"""The configs in docs/own_data.md load the images they claim to."""

import json
import re
from pathlib import Path

import pytest
from image_folders import write_image_folder
from mmengine.config import Config
from mmengine.runner import Runner

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs/own_data.md').read_text(encoding='utf-8')
BLOCKS = {
    re.match(r'# (.*)\n', block).group(1): block
    for block in re.findall(r'```python\n(.*?)```', PAGE, flags=re.DOTALL)
}
# Name of the block, images per epoch, labeled images per epoch.
CASES = [
    ('labeled', 20, 20),
    ('partly labeled, by ratio', 20, 2),
    ('partly labeled, by list', 20, 2),
    ('partly labeled, by annotation file', 6, 4),
    ('a labeled and an unlabeled folder', 40, 20),
    ('a partly labeled and an unlabeled folder', 40, 10),
    ('unlabeled', 20, 0),
    ('several classes per image', 6, 4),
    # 2 of 20, each five times.
    ('labeled images five times per epoch', 28, 10),
    ('fine-tuning on the labeled images', 2, 2),
    ('broken files', 20, 20),
    ('small images, a tenth of the labels', 20, 2),
]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """The folders and files of the page, in data/mine."""
    root = tmp_path_factory.mktemp('own')
    mine = root / 'data' / 'mine'
    for part in ('train', 'val', 'unlabeled'):
        write_image_folder(mine / part, classes=2, per_class=10)
    (mine / 'unlabeled' / 'class_0').rename(mine / 'unlabeled' / 'sub')
    write_image_folder(mine / 'all', classes=1, per_class=6)
    (mine / 'labeled.txt').write_text('class_0/3.png\nclass_1/0.png\n')
    labels = {f'class_0/{i}.png': i % 5 - 1 for i in range(6)}
    (mine / 'all.txt').write_text(
        ''.join(f'{name} {label}\n' for name, label in labels.items())
    )
    infos = [
        dict(img_path=name, gt_label=[] if label < 0 else [0, label])
        for name, label in labels.items()
    ]
    (mine / 'all.json').write_text(
        json.dumps(dict(metainfo=dict(classes=[*'abcd']), data_list=infos))
    )
    return root


def config(name, folder):
    """Write the config of a block, with bases in the repository."""
    for title, block in BLOCKS.items():
        text = block.replace("'../", f"'{ROOT}/configs/")
        target = 'labeled' if title == 'labeled' else title.replace(' ', '_')
        (folder / f'{target}.py').write_text(text)
    return Config.fromfile(folder / f'{name.replace(" ", "_")}.py')


@pytest.mark.parametrize('name, images, labeled', CASES)
def test_documented_config(data, tmp_path, monkeypatch, name, images, labeled):
    monkeypatch.chdir(data)
    cfg = config(name, tmp_path)
    loader = cfg.train_dataloader
    loader.update(
        batch_size=8,
        num_workers=0,
        persistent_workers=False,
        pin_memory=False,
        drop_last=False,
    )
    samples = [
        sample
        for batch in Runner.build_dataloader(loader, seed=0)
        for sample in batch['data_samples']
    ]
    assert len(samples) == images
    known = [s for s in samples if 'gt_label' in s and (s.gt_label >= 0).any()]
    assert len(known) == labeled
    largest = max((int(s.gt_label.max()) for s in known), default=0)
    assert largest < (cfg.model.head.num_classes or 2)


def test_every_block_is_tested():
    assert {name for name, *_ in CASES} == set(BLOCKS)


@pytest.mark.parametrize('name', ['labeled', 'unlabeled'])
def test_a_runner_accepts_it(data, tmp_path, monkeypatch, name):
    monkeypatch.chdir(data)
    cfg = config(name, tmp_path)
    cfg.work_dir = str(tmp_path / 'work')
    cfg.model.backbone.update(base_channels=8, stem_channels=8)
    cfg.model.neck.in_channels = 256
    runner = Runner.from_cfg(cfg)
    if name == 'labeled':
        runner.build_val_loop(cfg.val_cfg)
        queries = Runner.build_dataloader(cfg.val_dataloader).dataset
        bank = Runner.build_dataloader(
            cfg.val_cfg.bank_dataloader, seed=0
        ).dataset
        assert 'mine/val/' in queries.get_data_info(0)['img_path']
        assert 'mine/train/' in bank.get_data_info(0)['img_path']
    else:
        assert runner.val_loop is None
