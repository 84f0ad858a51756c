"""The hook that looks after normalisation, and after what is tested."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner
from mmpretrain.registry import MODELS

from mmunimoco.engine import TransferCheckHook
from mmunimoco.utils.checkpoint import bare_model
from mmunimoco.utils.normalization import (
    Normalization,
    normalization_of_checkpoint,
)

RGB = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
BACKBONE = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)


def build_runner(folder, preprocessor, init_cfg=None, classes=5, **options):
    """A real runner in mmpretrain's scope; nothing is trained."""
    # As from a file, so that the text of the config is that of real runs.
    path = folder / 'config.py'
    folder.mkdir(exist_ok=True)
    model = dict(
        type='ImageClassifier',
        backbone=dict(BACKBONE, init_cfg=init_cfg),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=classes, in_channels=64),
        data_preprocessor=options.pop('inner', None),
    )
    config = dict(
        model=model,
        work_dir=str(folder),
        default_scope='mmpretrain',
        custom_hooks=[dict(type='mmpretrain.TransferCheckHook')],
        experiment_name=str(folder).replace('/', '_'),
        **options,
    )
    if preprocessor is not None:
        config['data_preprocessor'] = preprocessor
    Config(config).dump(path)
    return Runner.from_cfg(Config.fromfile(path))


def the_hook(runner):
    """The hook under test; others want a whole training loop."""
    (hook,) = (h for h in runner.hooks if isinstance(h, TransferCheckHook))
    return hook


def pretrained(folder, preprocessor, **options):
    """A checkpoint with what mmengine stores of the config, its text."""
    runner = build_runner(folder, preprocessor, **options)
    meta = dict(cfg=runner.cfg.pretty_text, epoch=1)
    state = runner.model.state_dict()
    torch.save(dict(state_dict=state, meta=meta), folder / 'a.pth')
    return str(folder / 'a.pth')


def transfer_log(folder, path, preprocessor, **options):
    """What the hook says when training starts."""
    init_cfg = dict(
        type='mmpretrain.Pretrained', checkpoint=path, prefix='backbone.'
    )
    runner = build_runner(folder, preprocessor, init_cfg, **options)
    runner.model.init_weights()
    the_hook(runner).before_train(runner)
    (log,) = folder.glob('*/*.log')
    return log.read_text()


# Keys that preprocessors of mmpretrain do not know are those of the hosts.
@pytest.mark.parametrize(
    ('there', 'here'),
    [
        (dict(RGB, to_rgb=True), dict(RGB, to_rgb=True)),
        (dict(RGB, to_rgb=False), dict(RGB, to_rgb=False)),
        (dict(mean=[73] * 3, std=[90.0] * 3), dict(mean=[73.0] * 3, std=[90])),
        (dict(RGB, to_rgb=True), dict(RGB, mean=(123.68, 116.28, 103.53))),
    ],
)
def test_same_normalisation(tmp_path, there, here):
    here = dict(there, **here)
    here['std'] = there['std']
    path = pretrained(tmp_path / 'a', there)
    log = transfer_log(tmp_path / 'b', path, here)
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
def test_mismatch_is_a_warning_with_both(tmp_path, change, shown):
    there = dict(RGB, to_rgb=True)
    path = pretrained(tmp_path / 'a', there)
    log = transfer_log(tmp_path / 'b', path, dict(there, **change))
    assert 'WARNING - Normalisation differs' in log
    assert shown in log
    assert (
        'pre-training: mean [123.675, 116.28, 103.53], '
        'std [58.395, 57.12, 57.375], channels RGB\n'
    ) in log


def test_preprocessor_inside_the_model_counts(tmp_path):
    inside = dict(RGB, type='ClsDataPreprocessor', to_rgb=True)
    outside = dict(mean=[1.0] * 3, std=[2.0] * 3)
    path = pretrained(tmp_path / 'a', outside, inner=inside)
    log = transfer_log(tmp_path / 'b', path, outside, inner=inside)
    assert 'Normalisation is that of pre-training: mean [123.675' in log


def test_unknown_is_said(tmp_path):
    path = pretrained(tmp_path / 'a', dict(RGB))
    state = torch.load(path, weights_only=False)['state_dict']
    torch.save(dict(state_dict=state, meta={}), path)
    log = transfer_log(tmp_path / 'b', path, dict(RGB, to_rgb=True))
    assert 'not compared: the checkpoint' in log
    assert 'Here: mean [123.675' in log


def test_a_url_is_not_compared(tmp_path, monkeypatch):
    path = pretrained(tmp_path / 'a', dict(RGB))
    checkpoint = torch.load(path, weights_only=False)
    # In place of a download.
    monkeypatch.setattr(
        'mmunimoco.engine.pretrained_init._load_checkpoint',
        lambda *args, **options: checkpoint,
    )
    url = 'https://example.com/a.pth'
    log = transfer_log(tmp_path / 'b', url, dict(RGB, to_rgb=True))
    assert f'not compared: {url} is a URL' in log
    assert 'Here: mean [123.675' in log


LOOP = dict(
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
)


@pytest.mark.parametrize('base', [16, 2])
def test_fewer_images_than_meant_is_a_warning(tmp_path, base):
    options = dict(LOOP, auto_scale_lr=dict(base_batch_size=base))
    log = transfer_log(tmp_path, 'none', None, **options)
    if base == 2:
        assert 'counts iterations' not in log
        return
    assert 'for 16 images a step; here a step has 2, so 0.125 times' in log
    assert 'steps of 16: train_dataloader.batch_size=16\n' in log
    assert 'auto_scale_lr.enable=True auto_scale_lr.schedule=True' in log
    assert 'train_cfg.max_iters=192000 train_cfg.val_interval=8000' in log
    assert 'param_scheduler.0.milestones=144000,176000\n' in log


def test_random_weights_have_nothing_to_compare(tmp_path):
    log = transfer_log(tmp_path / 'b', 'none', dict(RGB))
    assert 'the weights are random' in log
    assert 'Normalisation' not in log


@pytest.mark.parametrize(
    'meta',
    [
        dict(normalization=dict(RGB, to_rgb=True), cfg='model = dict()'),
        dict(cfg='data_preprocessor = dict(mean=(123.675, 116.28, 103.53),'
             ' std=[58.395, 57.12, 57.375], bgr_to_rgb=True)'),
        dict(cfg='x = 1\nmodel = dict(data_preprocessor=dict(mean=[123.675,'
             ' 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True))'),
    ],
)  # fmt: skip
def test_what_checkpoints_tell(meta):
    expected = Normalization(tuple(RGB['mean']), tuple(RGB['std']), True)
    assert normalization_of_checkpoint(dict(meta=meta)) == expected


@pytest.mark.parametrize(
    'checkpoint',
    [
        dict(),
        dict(meta=None),
        dict(meta=dict(cfg=None)),
        dict(meta=dict(cfg='no = (python')),
        dict(meta=dict(cfg='data_preprocessor = 3')),
        dict(meta=dict(cfg='data_preprocessor = dict(mean=open("x"))')),
        dict(meta=dict(normalization='unknown')),
        dict(meta=dict(normalization=dict(mean=3))),
    ],
)
def test_what_checkpoints_do_not_tell(checkpoint):
    assert normalization_of_checkpoint(checkpoint) is None


def test_text_of_a_config_is_not_executed(tmp_path):
    made = tmp_path / 'made'
    call = f'dict(mean=__import__("pathlib").Path({str(made)!r}).touch())'
    text = f'data_preprocessor = {call}'
    assert normalization_of_checkpoint(dict(meta=dict(cfg=text))) is None
    assert not made.exists()


def _start_test(runner):
    runner.load_or_resume()
    the_hook(runner).before_test(runner)


def test_a_fine_tuned_model_may_be_tested(tmp_path):
    path = pretrained(tmp_path / 'a', dict(RGB))
    runner = build_runner(tmp_path / 'b', dict(RGB), load_from=path)
    _start_test(runner)
    (log,) = (tmp_path / 'b').glob('*/*.log')
    said = 'fills 122 of 122 tensors of the model; 0 of its own are not used'
    assert said in log.read_text()


def test_a_pretrained_checkpoint_is_not_tested(tmp_path):
    path = pretrained(tmp_path / 'a', dict(RGB))
    state = torch.load(path, weights_only=False)['state_dict']
    state = {k: v for k, v in state.items() if k.startswith('backbone.')}
    torch.save(dict(state_dict=state), path)
    runner = build_runner(tmp_path / 'b', dict(RGB), load_from=path)
    message = r'lacks 2 tensors .* head.fc.weight, head.fc.bias. The pre'
    with pytest.raises(ValueError, match=message):
        _start_test(runner)


def test_another_number_of_classes_is_not_tested(tmp_path):
    path = pretrained(tmp_path / 'a', dict(RGB))
    runner = build_runner(tmp_path / 'b', dict(RGB), None, 3, load_from=path)
    with pytest.raises(ValueError, match=r'\(5, 64\) in the file, \(3, 64\)'):
        _start_test(runner)


def test_what_training_filled_may_be_tested(tmp_path):
    path = pretrained(tmp_path / 'a', dict(RGB))
    runner = build_runner(tmp_path / 'b', dict(RGB), None, 3, load_from=path)
    runner.load_or_resume()
    the_hook(runner).before_train(runner)
    the_hook(runner).before_test(runner)


def test_models_for_augmented_tests_are_unwrapped():
    class Average(BaseTTAModel):
        def merge_preds(self, data_samples_list):
            return data_samples_list

    backbone = dict(BACKBONE, type='mmpretrain.ResNet')
    model = MODELS.build(
        dict(type='mmpretrain.ImageClassifier', backbone=backbone)
    )
    assert bare_model(Average(module=model)) is model
