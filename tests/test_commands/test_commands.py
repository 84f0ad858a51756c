"""The command line: real runs on small folders."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_checkpoints import randomize
from image_folders import FEATURES, NARROW_RESNET, write_image_folder
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from mmunimoco.__main__ import main
from mmunimoco.datasets.image_checks import BrokenImageError
from mmunimoco.engine import (
    ExactCheckpointHook,
    ExactEpochLoop,
    KNNValLoop,
)

FILE = __file__


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A folder, and the output of two epochs on it."""
    folder = tmp_path_factory.mktemp('run')
    images = write_image_folder(folder / 'my images', 3, 20)
    (images / 'unlabeled').mkdir()
    for index in range(12):
        image = Image.open(images / f'class_0/{index}.png')
        image.rotate(90).save(images / f'unlabeled/{index}.png')
    out = folder / 'out'
    arguments = ['pretrain', str(images), '--out', str(out)]
    assert main([*arguments, '--epochs', '2']) == 0
    return images, out


def test_pretrain_says_what_it_does_and_what_comes_next(tmp_path, capsys):
    images = write_image_folder(tmp_path / 'my images', 2, 20)
    (images / 'class_0/broken.png').write_text('')
    options = ['--out', str(tmp_path / 'out'), '--epochs', '1']
    assert main(['pretrain', str(images), *options]) == 0
    text = capsys.readouterr().out
    for line in (
        'labels      36 images (100.0 %) of 2 classes',
        f'left out    1 unreadable images in {images}: class_0/broken.png',
        'validation  kNN (k 9) of 4 images',
        '% (best ',
        f"embed {tmp_path}/out/epoch_1.pth '{images}' --out features.npz",
    ):
        assert line in text


def test_pretrain_tells_the_last_score_from_the_best(
    tmp_path, monkeypatch, capsys
):
    scores = iter((10.0, 50.0, 30.0))  # before training, and of two epochs
    monkeypatch.setattr(
        *(KNNValLoop, 'measure'),
        lambda *_, **__: {'knn/top1': next(scores)},
    )
    images = write_image_folder(tmp_path / 'images', 2, 20)
    options = ['--out', str(tmp_path / 'out'), '--epochs', '2']
    assert main(['pretrain', str(images), *options]) == 0
    text = 'kNN top-1   30.0 % (best 50.0), 10.0 before training'
    assert text in capsys.readouterr().out


def test_labels_are_those_of_the_folder(run):
    _, out = run
    lines = (out / 'inputs/train.txt').read_text().splitlines()
    held_out = (out / 'inputs/val.txt').read_text().splitlines()
    assert len(lines) == 66 and len(held_out) == 6
    assert sum(line.endswith(' -1') for line in lines) == 12
    queue = torch.load(out / 'epoch_2.pth', weights_only=False)['state_dict']
    assert set(queue['head.label_queue'].tolist()) == {-1, 0, 1, 2}


def test_a_run_is_not_overwritten_and_resumes(run, capsys):
    images, out = run
    arguments = ['pretrain', str(images), '--out', str(out)]
    assert main(arguments) == 1
    assert '--resume, or give another --out' in capsys.readouterr().err
    assert main([*arguments, '--resume']) == 0
    assert 'epoch_2.pth' in capsys.readouterr().out
    assert main([*arguments, '--resume', '--seed', '0']) == 1
    assert 'leave out --seed' in capsys.readouterr().err
    assert main([*arguments, '--resume', '--epochs', '2']) == 0
    assert main([*arguments, '--resume', '--epochs', '1']) == 1
    assert '1 epochs are not longer than the run' in capsys.readouterr().err
    other = [arguments[0], str(images / 'class_0'), *arguments[2:]]
    assert main([*other, '--resume']) == 1
    assert (
        f'is of {images}, not of {images}/class_0' in capsys.readouterr().err
    )
    assert main([*arguments[:3], str(out / 'other'), '--resume']) == 1
    assert 'leave out --resume' in capsys.readouterr().err


def test_a_restarted_run_goes_on(tmp_path, monkeypatch, capsys):
    """Slurm gives the same command, from before there was a run."""
    images = write_image_folder(tmp_path / 'images', 2, 20)
    out = tmp_path / 'out'
    arguments = ['pretrain', str(images), '--out', str(out), '--seed', '1']
    arguments += ['--val-share', '0', '--epochs', '2']

    def preempt(hook, runner):
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(ExactCheckpointHook, 'after_train_epoch', preempt)
        main(arguments)
    (first,) = out.glob('*/*.log')
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert f'the run in {out} goes on' in text
    (log,) = (x.read_text() for x in out.glob('*/*.log') if x != first)
    assert 'resumed epoch: 1' in log and 'Saving checkpoint at 2' in log
    assert 'Epoch(train) [1]' not in log


def test_a_restart_does_not_go_on_with_the_run_of_another(
    run, monkeypatch, capsys
):
    images, out = run
    arguments = ['pretrain', str(images), '--out', str(out), '--epochs', '9']
    assert main(arguments) == 1
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    assert main(arguments) == 1
    assert capsys.readouterr().err.count('give another --out') == 2


def test_eval_repeats_the_last_validation(run, capsys):
    _, out = run
    assert main(['eval', str(out / 'epoch_2.pth')]) == 0
    text = capsys.readouterr().out
    assert 'knn/top1: ' in text and 'linear/top1: ' in text


def test_embed_writes_features_with_names(run, tmp_path, capsys):
    images, out = run
    target = tmp_path / 'features.npz'
    arguments = ['embed', str(out / 'epoch_2.pth'), str(images)]
    arguments += ['--out', str(target)]
    assert main(arguments) == 0
    found = np.load(target)
    assert found['features'].shape == (72, 128)
    assert found['names'][0] == 'class_0/0.png' and found['labels'][0] == 0
    assert (found['labels'] == -1).sum() == 12
    # The same file twice has the same features.
    second = write_image_folder(tmp_path / 'more', 1, 1)
    arguments[2:] = [str(second), '--out', str(tmp_path / 'more.npz')]
    assert main(arguments) == 0
    np.testing.assert_allclose(
        np.load(tmp_path / 'more.npz')['features'][0],
        found['features'][0],
        rtol=1e-4,
        atol=1e-5,
    )
    assert main(arguments) == 1
    assert '--force overwrites' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('kind', 'to_rgb', 'options', 'cut'),
    [
        ('SelfSupDataPreprocessor', False, {}, 0),
        ('SelfSupDataPreprocessor', True, {}, 0),
        ('SelfSupDataPreprocessor', True, {}, 4),
        ('TwoViewAugment', False, dict(crop=dict(scale=32)), 0),
    ],
)
def test_embed_has_the_colors_of_training(
    tmp_path, capsys, kind, to_rgb, options, cut
):
    """Arrays that training did not reverse are RGB; files are read as BGR."""
    crops = [dict(type='RandomResizedCrop', scale=(32, 32))]
    cfg = dict(
        model=dict(
            type='UniMoCo',
            backbone=NARROW_RESNET,
            neck=dict(
                type='MoCoV2Neck',
                in_channels=FEATURES,
                hid_channels=16,
                out_channels=8,
            ),
            head=dict(type='UniMoCoHead', feat_dim=8, queue_len=8),
        ),
        data_preprocessor=dict(
            type=kind,
            **dict(mean=[90.0, 100.0, 110.0], std=[50.0, 60.0, 70.0]),
            **dict(to_rgb=to_rgb, **options),
        ),
        train_dataloader=dict(
            dataset=dict(
                type='NpzImages',
                ann_file='not read',
                pipeline=[] if options else crops,
            )
        ),
    )
    if cut:  # as in validation, if that reads files
        load, crop = 'CheckedLoadImageFromFile', dict(type='CenterCrop')
        pipeline = [dict(type=load), dict(crop, crop_size=32 - 2 * cut)]
        pipeline.append(dict(type='PackInputs'))
        cfg['val_dataloader'] = dict(dataset=dict(pipeline=pipeline))
    config, checkpoint = tmp_path / 'config.py', tmp_path / 'a.pth'
    Config(cfg).dump(config)
    backbone = randomize(MODELS.build(dict(NARROW_RESNET)))
    state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    torch.save(dict(state_dict=state), checkpoint)
    images = write_image_folder(tmp_path / 'images', 3, 1)
    arguments = ['embed', str(checkpoint), str(images), '--config']
    arguments += [str(config), '--out', str(tmp_path / 'x.npz')]
    assert main(arguments) == 0
    found = np.load(tmp_path / 'x.npz')
    assert found['labels'].tolist() == [0, 1, 2]
    pixels = [np.asarray(Image.open(images / x)) for x in found['names']]
    mean, std = (
        torch.tensor(cfg['data_preprocessor'][x]) for x in ('mean', 'std')
    )
    x = (torch.from_numpy(np.stack(pixels)).float() - mean) / std
    x = x[:, cut : 32 - cut, cut : 32 - cut]
    with torch.no_grad():
        (expected,) = backbone(x.permute(0, 3, 1, 2))
    np.testing.assert_allclose(
        found['features'], expected.mean(dim=(2, 3)), rtol=1e-4, atol=1e-6
    )
    state['backbone.conv1.weight'][0] = float('nan')
    torch.save(dict(state_dict=state), checkpoint)
    assert main([*arguments, '--force']) == 1
    assert 'of 3 images are infinite or NaN' in capsys.readouterr().err


def test_unlabeled_images_train_without_validation(tmp_path, capsys):
    """Also those of a single class."""
    images = write_image_folder(tmp_path / 'images', 1, 36)
    out = tmp_path / 'out'
    options = ['--out', str(out), '--epochs', '1']
    assert main(['pretrain', str(images), *options]) == 0
    text = capsys.readouterr().out
    assert 'one class alone (class_0)' in text
    assert 'validation  none' in text and 'labels      none' in text
    # Without labels there is nothing to evaluate.
    assert 'mmunimoco embed' in text and 'mmunimoco eval' not in text
    target = tmp_path / 'features.npz'
    arguments = ['embed', str(out / 'epoch_1.pth'), str(images / 'class_0')]
    assert main([*arguments, '--out', str(target)]) == 0
    assert np.load(target)['features'].shape == (36, 128)
    assert main(['eval', str(out / 'epoch_1.pth')]) == 1
    assert 'no labeled validation images' in capsys.readouterr().err


def test_a_dry_run_writes_a_config_for_other_tools(tmp_path, capsys):
    train = write_image_folder(tmp_path / 'images/train', 3, 20)
    val = write_image_folder(tmp_path / 'images/val', 2, 4)
    (val / 'class_1').rename(val / 'class_2')
    # What is not used is named.
    for path in (val / 'x.png', val / 'class_2/y.png', train / '../z/z.png'):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((val / 'class_0/0.png').read_bytes())
    (val / 'class_2/y.png').write_text('')
    out = tmp_path / 'out'
    options = ['--out', str(out), '--dry-run', '--seed', '3']
    assert main(['pretrain', str(train.parent), *options]) == 0
    text = capsys.readouterr().out
    assert f'note        not used, as they are not in {train}: z\n' in text
    assert f'note        1 images in {val} have no class' in text
    assert f'left out    1 unreadable images in {val}: class_2/y.png' in text
    script, config, *rest = text.split()[-4:]
    assert Path(script).is_file() and config == str(out / 'inputs/pretrain.py')
    assert rest == ['--work-dir', str(out)]
    cfg = Config.fromfile(out / 'inputs/pretrain.py')
    assert cfg.val_dataloader.dataset.data_prefix == str(val)
    assert cfg.randomness.seed == 3
    # Class ids are those of training.
    lines = (out / 'inputs/val.txt').read_text().splitlines()
    assert lines[-1] == 'class_2/3.png 2'
    assert [p.name for p in out.iterdir()] == ['inputs']
    # Nothing has been trained: another plan may replace it.
    options[-1] = '4'
    assert main(['pretrain', str(train.parent), *options]) == 0
    assert Config.fromfile(config).randomness.seed == 4
    (val / 'class_2').rename(val / 'fox')
    assert main(['pretrain', str(train.parent), *options]) == 1
    assert 'has classes that' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'text', 'status'),
    [
        (['pretrain', '{}/nothing'], 'nothing does not exist', 1),
        (['pretrain', '{}'], 'there is no image in', 1),
        (['pretrain', '{}', '--epochs', '0'], '--epochs must be', 1),
        (['pretrain', '{}', '--val-share', '1'], '--val-share must be', 1),
        (['embed', 'x.pth', '{}', '--out', 'x.txt'], 'end with .npz', 1),
        (['eval', '{}/x.pth'], 'x.pth', 1),
        (['eval', '{}'], 'is a folder: give a file in it', 1),
        # Before the images are looked at.
        (['pretrain', '{}', '--out', FILE], f'{FILE} is a file, not a f', 1),
        (['embed', 'x', '{}', '--out', f'{FILE}/a/x.npz'], 'is a file, no', 1),
        (['export', '{}', 'x', '--to', 'onnx'], 'mmunimoco export: error', 1),
        (['check', 'x.py', '--processes', '0'], 'must be at least 1', 1),
        (['check', 'x.py', '--cfg-options', 'a.b', '1'], 'takes key=val', 1),
        (['train'], "there is no command 'train'", 2),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, arguments, text, status):
    found = main([argument.format(tmp_path) for argument in arguments])
    assert found == status
    error = capsys.readouterr().err
    assert text in error and 'Traceback' not in error


def test_features_are_not_computed_where_they_cannot_be_written(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(os, 'access', lambda path, mode: path != tmp_path)
    out = str(tmp_path / 'new/x.npz')
    assert main(['embed', 'x.pth', str(tmp_path), '--out', out]) == 1
    assert f'{tmp_path} cannot be written to' in capsys.readouterr().err


def test_labels_of_one_class_do_not_validate(tmp_path, capsys):
    images = write_image_folder(tmp_path / 'images', 2, 20)
    labels = tmp_path / 'labels.txt'
    labels.write_text(''.join(f'class_1/{i}.png\n' for i in range(9)))
    options = ['--labels', str(labels), '--out', str(tmp_path / 'out')]
    assert main(['pretrain', str(images), *options, '--dry-run']) == 0
    text = capsys.readouterr().out
    assert 'one class alone (class_1)' in text
    assert 'validation  none' in text


def test_a_share_of_nothing_is_no_validation(tmp_path, capsys):
    images = write_image_folder(tmp_path / 'images', 2, 20)
    options = ['--out', str(tmp_path / 'out'), '--val-share', '0']
    assert main(['pretrain', str(images), *options, '--dry-run']) == 0
    text = capsys.readouterr().out
    assert 'images      40 in' in text and 'validation  none' in text


@pytest.mark.parametrize('command', ['embed', 'eval'])
@pytest.mark.parametrize('place', ['model', 'test_dataloader'])
def test_a_checkpoint_executes_nothing(run, tmp_path, command, place):
    """Its config is anybody's, and a registry would import the type."""
    images, out = run
    checkpoint = torch.load(out / 'epoch_2.pth', weights_only=False)
    made = tmp_path / 'made'
    attack = dict(type='subprocess.check_output', args=['touch', str(made)])
    checkpoint['meta']['cfg'] += f'\n{place} = {attack!r}\n'
    path = tmp_path / 'attack.pth'
    torch.save(checkpoint, path)
    rest = [str(images), '--out', str(tmp_path / 'x.npz')]
    arguments = [command, str(path), *(rest if command == 'embed' else [])]
    assert main(arguments) == 1
    assert not made.exists()


def test_a_config_serves_from_any_folder(tmp_path, monkeypatch):
    write_image_folder(tmp_path / 'images', 2, 20)
    monkeypatch.chdir(tmp_path)
    assert main(['pretrain', 'images', '--out', 'out', '--dry-run']) == 0
    cfg = Config.fromfile(tmp_path / 'out/inputs/pretrain.py')
    assert cfg.images.data_prefix == str(tmp_path / 'images')


def test_a_run_that_was_moved_keeps_its_lists(tmp_path, capsys):
    """Another run may have taken the place that its config names."""
    images = write_image_folder(tmp_path / 'images', 2, 20)
    out, moved = tmp_path / 'out', tmp_path / 'moved'
    arguments = ['pretrain', str(images), '--out']
    assert main([*arguments, str(out), '--epochs', '1']) == 0
    out.rename(moved)
    assert main([*arguments, str(out), '--seed', '1', '--dry-run']) == 0
    assert (out / 'inputs/val.txt').read_text() != (
        moved / 'inputs/val.txt'
    ).read_text()
    assert main(['eval', str(moved / 'epoch_1.pth')]) == 0
    shutil.rmtree(out)
    assert main([*arguments, str(moved), '--resume', '--epochs', '2']) == 0
    cfg = Config.fromfile(moved / 'pretrain.py')
    named = cfg.val_dataloader.dataset.ann_file
    assert named == str(moved / 'inputs/val.txt')
    capsys.readouterr()
    (evaluated,) = (moved / 'eval').rglob('config.py')
    cfg = Config.fromfile(evaluated)
    assert cfg.load_from == str(moved / 'epoch_1.pth')
    named = [cfg.test_dataloader.dataset, cfg.test_cfg.bank_dataloader.dataset]
    assert [Path(x.ann_file).parents[1] for x in named] == [moved, moved]


@pytest.mark.parametrize(
    ('saved', 'text'),
    [(False, 'begins anew'), (True, '--resume continues from epoch_1.pth')],
)
def test_an_interrupted_run_says_what_is_left(
    tmp_path, capsys, monkeypatch, saved, text
):
    images = write_image_folder(tmp_path / 'images', 2, 20)
    options = ['--out', str(tmp_path / 'out'), '--epochs', '1']
    save = ExactCheckpointHook.after_train_epoch

    def interrupt(hook, runner):
        if saved:
            save(hook, runner)
        raise KeyboardInterrupt

    monkeypatch.setattr(ExactCheckpointHook, 'after_train_epoch', interrupt)
    assert main(['pretrain', str(images), *options]) == 130
    assert text in capsys.readouterr().err


def test_an_interrupted_longer_run_continues_as_such(
    run, tmp_path, capsys, monkeypatch
):
    images, out = run
    shutil.copytree(out, tmp_path / 'out')
    options = ['--out', str(tmp_path / 'out'), '--resume', '--epochs', '4']

    def interrupt(loop):
        raise KeyboardInterrupt

    monkeypatch.setattr(ExactEpochLoop, 'run_epoch', interrupt)
    assert main(['pretrain', str(images), *options]) == 130
    text = '--resume --epochs 4 continues from epoch_2.pth'
    assert text in capsys.readouterr().err


def test_an_error_of_a_data_loader_is_its_last_line(monkeypatch, capsys):
    """Torch puts the traceback of the process into the message."""

    class Broken(Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            raise BrokenImageError('2 files are broken:\n  ValueError: a.png')

    def load(*args):
        list(DataLoader(Broken(), num_workers=1))

    monkeypatch.setattr('mmunimoco.__main__._run', load)
    assert main(['pretrain']) == 1
    error = capsys.readouterr().err
    assert error == (
        'mmunimoco pretrain: error: 2 files are broken:\n  ValueError: a.png\n'
    )


def test_overview_and_version(capsys):
    from mmunimoco import __version__

    assert main(['--help']) == 0
    assert 'pretrain' in capsys.readouterr().out
    assert main(['--version']) == 0
    assert capsys.readouterr().out.strip() == __version__
