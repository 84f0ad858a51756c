"""Checks before a run starts: checkpoints, labels, classes, normalisation."""

import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.runner import Runner, TestLoop
from mmengine.runner.runner import _SlicedDataset
from mmpretrain.datasets import CustomDataset
from torch import nn
from toy_dataset import Toy, toy

from mmunimoco.datasets import PartialLabels
from mmunimoco.engine import KNNTestLoop, KNNValLoop, PreflightHook

RGB = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
BACKBONE = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)


def build_runner(folder, preprocessor, init_cfg=None, classes=5, **options):
    """A real runner with the hook; nothing is trained."""
    folder.mkdir(exist_ok=True)
    config = dict(
        model=dict(
            type='ImageClassifier',
            backbone=dict(
                options.pop('backbone', BACKBONE), init_cfg=init_cfg
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead', num_classes=classes, in_channels=64
            ),
            data_preprocessor=options.pop('inner', None),
        ),
        work_dir=str(folder),
        default_scope='mmpretrain',
        custom_hooks=[dict(type='mmpretrain.PreflightHook')],
        experiment_name=str(folder).replace('/', '_'),
        **options,
    )
    if preprocessor is not None:
        config['data_preprocessor'] = preprocessor
    # From a file, so checkpoints hold the text of the config as in real runs.
    Config(config).dump(folder / 'config.py')
    return Runner.from_cfg(Config.fromfile(folder / 'config.py'))


def the_hook(runner):
    (hook,) = (h for h in runner.hooks if isinstance(h, PreflightHook))
    return hook


def save(folder, preprocessor, change=lambda state: state, **options):
    """A checkpoint as mmengine writes it; ``change`` edits its weights."""
    runner = build_runner(folder, preprocessor, **options)
    meta = dict(cfg=runner.cfg.pretty_text, epoch=1)
    state = change(runner.model.state_dict())
    torch.save(dict(state_dict=state, meta=meta), folder / 'a.pth')
    return str(folder / 'a.pth')


def renamed(old, new):
    return lambda state: {
        key.replace(old, new): value
        for key, value in state.items()
        if key.startswith(old)
    }


# Loaded checkpoints.


def test_checkpoint_that_fits_nothing_is_refused(tmp_path):
    path = save(tmp_path / 'a', RGB, renamed('backbone.', 'encoder_q.'))
    runner = build_runner(tmp_path / 'b', RGB, load_from=path)
    with pytest.raises(ValueError, match=r"'encoder_q\.' \(\d+ keys\).*asks"):
        runner.load_or_resume()


def test_checkpoint_of_a_wrapped_model_is_loaded(tmp_path):
    path = save(tmp_path / 'a', RGB, renamed('backbone.', 'module.backbone.'))
    runner = build_runner(tmp_path / 'b', RGB, load_from=path)
    runner.load_or_resume()
    state = torch.load(path, weights_only=False)['state_dict']
    weight = runner.model.backbone.conv1.weight
    assert torch.equal(weight, state['module.backbone.conv1.weight'])


def start_training(runner):
    runner.load_or_resume()
    training = training_runner(dataset=toy([0]))
    training.model, training.logger = runner.model, runner.logger
    the_hook(runner).before_train(training)


def test_training_starts_only_from_a_whole_backbone(tmp_path):
    layers = renamed('backbone.layer', 'backbone.layer')
    path = save(tmp_path / 'a', RGB, layers)
    runner = build_runner(tmp_path / 'b', RGB, load_from=path)
    message = r'load_from.*114 of 120.*5 are missing: backbone.conv1.weight'
    with pytest.raises(ValueError, match=message):
        start_training(runner)
    the_hook(runner).allow_missing = ('backbone.conv1.', 'backbone.bn1.')
    start_training(runner)


def test_training_does_not_start_from_another_width(tmp_path):
    path = save(tmp_path / 'a', RGB)
    wider = dict(BACKBONE, base_channels=16)
    runner = build_runner(tmp_path / 'b', RGB, backbone=wider, load_from=path)
    with pytest.raises(ValueError, match=r'have another shape: backbone\.la'):
        start_training(runner)


def test_a_head_may_be_new_unless_the_run_resumes(tmp_path):
    path = save(tmp_path / 'a', RGB)
    runner = build_runner(tmp_path / 'b', RGB, classes=3, load_from=path)
    start_training(runner)
    runner._resume = True
    message = r'to resume from .*120 of 122 tensors fit; 2 have another shape'
    with pytest.raises(ValueError, match=message):
        the_hook(runner).after_load_checkpoint(
            runner, torch.load(path, weights_only=False)
        )


def start_test(runner, loop=None):
    runner.load_or_resume()
    runner._test_loop = loop or TestLoop.__new__(TestLoop)
    runner.test_loop.dataloader = SimpleNamespace(dataset=toy([0]))
    the_hook(runner).before_test(runner)


def test_fine_tuned_checkpoint_may_be_tested(tmp_path, log_of):
    path = save(tmp_path / 'a', RGB)
    start_test(build_runner(tmp_path / 'b', RGB, load_from=path))
    expected = 'fills 122 of 122 tensors of the model; 0 of its own are not'
    assert expected in log_of(tmp_path / 'b')


def test_checkpoint_without_head_is_tested_by_knn_alone(tmp_path):
    path = save(tmp_path / 'a', RGB, renamed('backbone.', 'backbone.'))
    runner = build_runner(tmp_path / 'b', RGB, load_from=path)
    message = r'lacks 2 tensors .* head.fc.weight, head.fc.bias. The prefixes'
    with pytest.raises(ValueError, match=message):
        start_test(runner)
    knn = KNNTestLoop.__new__(KNNTestLoop)
    start_test(runner, knn)
    path = save(
        tmp_path / 'a', RGB, renamed('backbone.layer', 'backbone.layer')
    )
    runner = build_runner(tmp_path / 'b', RGB, load_from=path)
    with pytest.raises(ValueError, match='lacks 5 tensors .* backbone.conv1'):
        start_test(runner, knn)


def test_another_number_of_classes_is_not_tested_until_trained(tmp_path):
    path = save(tmp_path / 'a', RGB)
    runner = build_runner(tmp_path / 'b', RGB, classes=3, load_from=path)
    with pytest.raises(ValueError, match=r'\(5, 64\) in the file, \(3, 64\)'):
        start_test(runner)
    the_hook(runner).before_train(training_runner(dataset=toy([0])))
    the_hook(runner).before_test(runner)


# Normalisation and schedule.


def transfer_log(folder, path, preprocessor, log_of, **options):
    """What is logged when transfer from a checkpoint starts."""
    init_cfg = dict(
        type='mmpretrain.Pretrained', checkpoint=path, prefix='backbone.'
    )
    runner = build_runner(folder, preprocessor, init_cfg, **options)
    runner.model.init_weights()
    # Without the training data that the config names.
    stand_in = training_runner(toy([0]))
    stand_in.cfg, stand_in.model = runner.cfg, runner.model
    stand_in.logger = runner.logger
    the_hook(runner).before_train(stand_in)
    return log_of(folder)


@pytest.mark.parametrize(
    ('there', 'here'),
    [
        (dict(RGB, to_rgb=True), {}),
        (dict(RGB, to_rgb=False), {}),
        (dict(mean=[73] * 3, std=[90.0] * 3), dict(mean=[73.0] * 3)),
        (dict(RGB, to_rgb=True), dict(mean=(123.68, 116.28, 103.53))),
    ],
)
def test_same_normalisation(tmp_path, log_of, there, here):
    path = save(tmp_path / 'a', there)
    log = transfer_log(tmp_path / 'b', path, {**there, **here}, log_of)
    assert 'Normalisation is that of pre-training: mean [' in log
    assert 'WARNING - Normalisation' not in log


@pytest.mark.parametrize(
    ('change', 'shown'),
    [
        (dict(mean=[0.0] * 3), 'here:         mean [0.0, 0.0, 0.0], std'),
        (dict(std=[1.0] * 3), '], std [1.0, 1.0, 1.0], channels RGB'),
        (dict(to_rgb=False), '57.375], channels BGR (as loaded)'),
    ],
)
def test_other_normalisation_is_a_warning(tmp_path, log_of, change, shown):
    there = dict(RGB, to_rgb=True)
    path = save(tmp_path / 'a', there)
    log = transfer_log(tmp_path / 'b', path, dict(there, **change), log_of)
    assert 'WARNING - Normalisation differs' in log
    assert shown in log
    assert (
        'pre-training: mean [123.675, 116.28, 103.53], '
        'std [58.395, 57.12, 57.375], channels RGB\n'
    ) in log


def test_preprocessor_inside_the_model_counts(tmp_path, log_of):
    inside = dict(RGB, type='ClsDataPreprocessor', to_rgb=True)
    outside = dict(mean=[1.0] * 3, std=[2.0] * 3)
    path = save(tmp_path / 'a', outside, inner=inside)
    log = transfer_log(tmp_path / 'b', path, outside, log_of, inner=inside)
    assert 'Normalisation is that of pre-training: mean [123.675' in log


def test_unknown_normalisation_is_logged(tmp_path, log_of, monkeypatch):
    path = save(tmp_path / 'a', RGB)
    checkpoint = torch.load(path, weights_only=False)
    torch.save(dict(state_dict=checkpoint['state_dict'], meta={}), path)
    log = transfer_log(tmp_path / 'b', path, dict(RGB, to_rgb=True), log_of)
    assert 'not compared: the checkpoint' in log
    assert 'Here: mean [123.675' in log
    # Instead of a download.
    monkeypatch.setattr(
        'mmunimoco.engine.pretrained_init._load_checkpoint',
        lambda *args, **options: checkpoint,
    )
    url = 'https://example.com/a.pth'
    log = transfer_log(tmp_path / 'c', url, dict(RGB, to_rgb=True), log_of)
    assert f'not compared: {url} is a URL' in log
    log = transfer_log(tmp_path / 'd', 'none', RGB, log_of)
    assert 'the weights are random' in log and 'Normalisation' not in log


@pytest.mark.parametrize('base', [16, 2])
def test_schedule_for_another_batch_size_is_a_warning(tmp_path, log_of, base):
    loop = dict(
        train_dataloader=dict(
            batch_size=2,
            dataset=dict(type='CIFAR10', data_root='', pipeline=[]),
            sampler=dict(type='DefaultSampler', shuffle=True),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=24000),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        param_scheduler=[
            dict(type='MultiStepLR', by_epoch=False, milestones=[18000, 22000])
        ],
        auto_scale_lr=dict(base_batch_size=base),
    )
    log = transfer_log(tmp_path, 'none', None, log_of, **loop)
    if base == 2:
        assert 'counts iterations' not in log
        return
    assert 'of 16 images, but a step of this run has 2, so it will see ' in log
    assert '0.125 times the images intended' in log
    assert 'with 16 images a step: train_dataloader.batch_size=16\n' in log
    assert 'auto_scale_lr.enable=True auto_scale_lr.schedule=True' in log
    assert 'train_cfg.max_iters=192000 train_cfg.val_interval=8000' in log
    assert 'param_scheduler.0.milestones=144000,176000\n' in log


def test_schedule_that_would_stop_the_run_is_an_error():
    runner = training_runner(toy([0]))
    runner.cfg = dict(
        train_cfg=dict(max_epochs=20),
        param_scheduler=dict(type='OneCycleLR', eta_max=1, total_steps=12),
    )
    with pytest.raises(ValueError, match='total_steps is 12, .* 20 epochs'):
        PreflightHook().before_train(runner)
    PreflightHook(accept='schedule').before_train(runner)


# Labels.


def training_runner(dataset, val_dataset=None):
    """What ``before_train`` looks at, of a model without a head."""
    loaders = [SimpleNamespace(dataset=x) for x in (dataset, val_dataset)]
    return SimpleNamespace(
        model=nn.Module(),
        train_dataloader=loaders[0],
        val_dataloader=loaders[1],
        val_loop=val_dataset,
        cfg={},
        world_size=1,
    )


def check(dataset, val_dataset=None, num_classes=3):
    model = nn.Module()
    model.head = SimpleNamespace(num_classes=num_classes)
    runner = training_runner(dataset, val_dataset)
    runner.model = model
    PreflightHook().before_train(runner)


def partial(labels, ratio=1.0):
    return PartialLabels(toy(labels), label_ratio=ratio)


def concat(*datasets):
    """As built from a config; instances have to be of BaseDataset."""
    wrapper = ConcatDataset([toy([0])])
    wrapper.datasets = datasets
    return wrapper


def repeat(dataset):
    wrapper = RepeatDataset(toy([0]), times=2)
    wrapper.dataset = dataset
    return wrapper


@pytest.mark.parametrize(
    'dataset',
    [
        partial([0, 3]),
        repeat(partial([3, 0])),
        concat(partial([0, 1]), partial([0, 3])),
        concat(toy([0]), repeat(partial([3]))),
        _SlicedDataset(repeat(partial([0, 3])), 1),  # num_batch_per_epoch
        PartialLabels(concat(toy([0]), toy([3])), label_ratio=1.0),
        concat(partial([0]), toy([0], metainfo=dict(classes='abcd'))),
    ],
)
def test_labels_beyond_the_classes_are_refused_below_any_wrapper(dataset):
    with pytest.raises(ValueError, match='model.head.num_classes=4, or'):
        check(dataset)
    check(dataset, num_classes=4)
    check(dataset, num_classes=None)


@pytest.mark.parametrize(
    'dataset',
    [
        concat(partial([0, 2]), partial([5, 9], ratio=0.0)),
        toy([0, 5]),  # nothing known before they are read
        [torch.zeros(1)],
    ],
)
def test_hidden_and_unknown_labels_pass(dataset):
    check(dataset)


# Class names.


def classed(classes):
    return toy([0], metainfo=dict(classes=classes))


def test_validation_has_the_class_ids_of_training():
    check(classed('abc'), classed('abc'))
    message = r"class 1 is 'b' in train_dataloader\.dataset and 'c' in val_d"
    with pytest.raises(ValueError, match=message):
        check(classed('abc'), classed('ac'))
    with pytest.raises(ValueError, match="class 0 is 'a' in train.* too, so"):
        check(concat(classed('ab'), classed('ba')))


def test_pretraining_may_validate_by_knn_on_other_classes():
    runner = training_runner(classed('abc'), classed('ac'))
    runner.val_loop = KNNValLoop.__new__(KNNValLoop)
    runner.val_loop.bank_dataloader = runner.val_dataloader
    PreflightHook().before_train(runner)


@pytest.mark.parametrize('loop', [None, KNNTestLoop])
def test_a_test_has_the_class_ids_of_the_checkpoint(tmp_path, loop):
    path = save(tmp_path / 'a', RGB)
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['meta']['dataset_meta'] = dict(classes=('a', 'b', 'c'))
    torch.save(checkpoint, path)
    runner = build_runner(tmp_path / 'b', RGB, load_from=path)
    runner.load_or_resume()
    testing = training_runner(None)
    testing.model, testing.logger = runner.model, runner.logger
    testing.test_loop = loop and loop.__new__(loop)
    testing.test_dataloader = SimpleNamespace(dataset=classed('abc'))
    the_hook(runner).before_test(testing)
    testing.test_dataloader.dataset = classed('ac')
    if loop is None:
        with pytest.raises(ValueError, match="'b' in the training data and"):
            the_hook(runner).before_test(testing)
    else:  # compares its bank and its queries by itself
        the_hook(runner).before_test(testing)


def test_a_folder_that_is_partly_read_is_one_warning(tmp_path, log):
    for name in ('a/0.jpg', 'b/1.jpg', '2.jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    folder = CustomDataset(data_prefix=str(tmp_path), pipeline=[])
    check(repeat(folder), folder)
    assert log.text.count('1 skipped (1 .jpg outside of class folders)') == 1
    assert 'WARNING' in log.text


# Class names of detection.


class CocoLike(Toy):
    """What the check looks at of mmdet's ``CocoDataset``."""

    def __init__(self, folder, names, classes):
        super().__init__([{}], metainfo=dict(classes=classes))
        path = folder / f'{"".join(names)}.json'
        categories = [dict(id=3 * i, name=x) for i, x in enumerate(names)]
        path.write_text(json.dumps(dict(categories=categories)))
        self.ann_file = str(path)
        self.cat_ids = [x['id'] for x in categories if x['name'] in classes]


def test_class_names_of_coco_files(tmp_path, monkeypatch):
    good = CocoLike(tmp_path, 'abc', 'ac')
    check(concat(good, good), _SlicedDataset(good, 1))
    unknown = CocoLike(tmp_path, 'ab', 'ac')
    message = r"ab\.json has no category named \['c'\].*are \['a', 'b'\]"
    for pair in ((concat(good, unknown), good), (good, unknown)):
        with pytest.raises(ValueError, match=message):
            check(*pair)
    with pytest.raises(ValueError, match=r"in the order \['c', 'a'\]"):
        check(CocoLike(tmp_path, 'ca', 'ac'))
    # Not of a benchmark's own classes, whose file takes long to read.
    monkeypatch.setattr(CocoLike, 'METAINFO', dict(classes='ac'))
    check(CocoLike(tmp_path, 'ca', 'ac'))


def test_class_names_of_voc_folders(log):
    def voc(*labels):
        infos = [dict(instances=[dict(bbox_label=x)]) for x in labels]
        dataset = Toy(infos, metainfo=dict(classes=('a', 'b')))
        dataset.ann_subdir = 'Annotations'
        return dataset

    check(voc(0, 1))
    assert not log.messages
    check(voc(1, 1))
    assert "has no object of ['a']" in log.text
    with pytest.raises(ValueError, match=r"classes \['a', 'b'\] is in the 1"):
        check(voc(7))
