"""Misspelt fields are refused, with the nearest known name."""

import re

import pytest
from exact_runs import ROOT
from mmengine.config import Config

from mmunimoco.engine.checks.config_fields import (
    check_arguments,
    check_fields,
    check_merged_fields,
)
from mmunimoco.engine.launch import build_runner
from mmunimoco.engine.schedules import SCALED

CONFIG = ROOT / 'configs/demo/unimoco_resnet18_fmnist-10pct.py'


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('train_dataloder.batch_size', 2, 'did you mean train_dataloader'),
        ('label_ratio', 0.1, 'mean train_dataloader.dataset.dataset.label_r'),
        ('head.temperature', 0.1, 'did you mean model.head.temperature'),
        ('model.head.loss', "dict(type='A')", r'model.head.loss.type=\.\.\.'),
    ],
)
def test_changes_of_fields_that_do_not_exist(name, value, message):
    with pytest.raises(ValueError, match=message):
        check_fields(Config.fromfile(CONFIG), {name: value})


def test_a_misspelt_field_of_the_config():
    cfg = Config.fromfile(CONFIG)
    check_fields(cfg, {'randomness.seed': 1})
    cfg.mine = cfg.test_pipeline = 1  # variables
    check_fields(cfg, {'mine': 2})
    cfg.train_dataloder = dict(batch_size=2)
    with pytest.raises(ValueError, match="'train_dataloder', which nothing"):
        check_fields(cfg, {})


@pytest.fixture
def write(tmp_path):
    """Return a function: load a config of some lines after the demo's."""

    def write(*lines):
        text = '\n'.join([f"_base_ = '{CONFIG}'", *lines])
        (tmp_path / 'mine.py').write_text(text)
        return Config.fromfile(tmp_path / 'mine.py')

    return write


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        (
            'label_ratio = 0.5',
            r'label_ratio at .* train_dataloader\.dataset\.',
        ),
        ("loss = dict(type='InfoNCELoss')", 'did you mean model.head.loss'),
        ('train_dataloder = dict(batch_size=2)', 'mean train_dataloader'),
    ],
)
def test_a_name_in_a_file_without_effect(write, line, message):
    with pytest.raises(ValueError, match=message):
        check_fields(write(line), {})


BASE = """
views = [dict(type='LoadTwoCrops', scale=32), dict(type='PackInputs')]
folder = 'data/mine'
train_dataloader = dict(dataset=dict(
    type='CustomDataset', data_root=folder, pipeline=views))
"""


def test_variables_that_are_read_may_resemble_fields(write):
    lines = ['models = [1, 2]', 'compiled = len(models)']
    lines += ['randomness = dict(seed=compiled)']
    check_fields(write(*lines), {})
    with pytest.raises(ValueError, match='did you mean model'):
        check_fields(write(lines[0]), {})


def test_advice_on_schedules_can_be_taken():
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict({'auto_scale_lr.enable': True, SCALED: True})
    check_arguments(cfg)


@pytest.mark.parametrize('name', ['views', 'folder'])
def test_a_variable_whose_value_was_read_already(tmp_path, name):
    (tmp_path / 'base.py').write_text(BASE)
    where = 'already in train_dataloader.dataset.'
    with pytest.raises(ValueError, match=f'{name} is a variable, .*{where}'):
        check_fields(
            Config.fromfile(tmp_path / 'base.py'), {name: 'data/other'}
        )
    child = tmp_path / 'child.py'
    child.write_text(f"_base_ = 'base.py'\n{name} = 'data/other'")
    with pytest.raises(ValueError, match=f'{name} is a variable of .*{where}'):
        check_fields(Config.fromfile(child), {})


@pytest.mark.parametrize(
    'lines',
    [
        ['note = 1', "classes = ('a', 'b')"],
        # Variables: one that is read, one as further down.
        ['queue_len = 8', 'model = dict(head=dict(queue_len=queue_len))'],
        ['temperature = 0.2'],
        ['k = 50', 'val_cfg = dict(k=k)', 'randomness = dict(seed=1)'],
    ],
)
def test_variables_of_a_file_pass(write, lines):
    check_fields(write(*lines), {})


def test_fields_that_were_added_by_another_script(write):
    """Mmpretrain's tools/train.py merges --cfg-options by itself."""
    cfg = write()
    cfg.merge_from_dict({'work_dir': 'a', 'launcher': 'none', 'my_own': 1})
    check_merged_fields(cfg)
    for name, message in (
        ('train_dataloder.batch_size', 'did you mean train_dataloader'),
        ('label_ratio', r'mean train_dataloader\.dataset\.dataset\.label_ra'),
    ):
        cfg = write()
        cfg.merge_from_dict({name: 1})
        with pytest.raises(ValueError, match=message):
            check_merged_fields(cfg)
    check_merged_fields(Config(dict(label_ratio=1)))  # of no file


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('model.momentun', r'model: UniMoCo .*\'momentun\'; did you mean mom'),
        ('model.backbone.stem_chanels', 'did you mean stem_channels'),
        ('train_dataloader.batchsize', 'a data loader .*mean batch_size'),
        ('val_cfg.bank_dataloader.batchsize', 'val_cfg.b.*mean batch_size'),
        ('train_dataloader.dataset.dataset.ratio', 'PartialLabels takes no'),
        ('val_cfg.neighbours', 'val_cfg: KNNValLoop .* It takes bank_chunk'),
        ('custom_hooks.3.treshold', 'custom_hooks.3: .* mean threshold'),
        ('default_hooks.logger.intervall', 'default_hooks.logger: .*interval'),
        ('default_hooks.checkpt.interval', 'no type; did you mean check'),
        ('auto_scale_lr.enabled', 'auto_scale_lr.enabled: .*mean enable'),
        ('env_cfg.cudnn_benchmrk', 'did you mean cudnn_benchmark'),
        ('randomness.sed', 'did you mean seed'),
        ('optim_wrapper.clip_gard', 'did you mean clip_grad'),
        ('optim_wrapper.optimizer.weight_decy', 'mean weight_decay'),
        ('visualizer.vis_backend', 'did you mean vis_backends'),
    ],
)
def test_arguments_that_nothing_takes(name, message, tmp_path):
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(tmp_path)
    check_arguments(cfg)
    cfg.merge_from_dict({name: 1})
    with pytest.raises(ValueError, match=message):
        build_runner(cfg)


def test_keywords_may_go_to_another_library():
    cfg = Config.fromfile(CONFIG)
    options = dict(model_name='vit_tiny_patch16_224', img_size=32)
    cfg.model.backbone = dict(type='TIMMBackbone', **options)
    check_arguments(cfg)
    # Those of a ResNeXt go to its base, ResNet.
    cfg.model.backbone = dict(type='ResNeXt', depth=50, stem_chanels=8)
    with pytest.raises(ValueError, match='did you mean stem_channels'):
        check_arguments(cfg)


@pytest.mark.parametrize('loss', ['UniConLoss', 'InfoNCELoss'])
def test_another_loss_over_inherited_arguments_needs_delete(loss):
    cfg = Config.fromfile(CONFIG)
    cfg.model.head.loss = dict(type=loss, reduction_position='in')
    message = rf'model.head.loss: {loss} .*loss=dict\(_delete_=True, type'
    with pytest.raises(ValueError, match=message) as error:
        check_arguments(cfg)
    # As the message says for the command line.
    advice = re.findall(r'(\S+_delete_)=True', str(error.value))[-1]
    change = {advice: True, 'model.head.loss.type': loss}
    cfg.merge_from_dict(change)
    check_arguments(cfg)
    assert cfg.model.head.loss == dict(type=loss)


def test_parts_of_a_list_inherit_nothing():
    cfg = Config.fromfile(CONFIG)
    cfg.custom_hooks[0].k = 1
    with pytest.raises(ValueError, match='takes no argument') as error:
        check_arguments(cfg)
    assert '_delete_' not in str(error.value)
