"""Misspelt fields are refused, with the nearest known name."""

import pytest
from exact_runs import ROOT
from mmengine.config import Config

from mmunimoco.engine.config_fields import check_arguments, check_fields
from mmunimoco.engine.launch import build_runner

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


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('model.momentun', r'model: UniMoCo .*\'momentun\'; did you mean mom'),
        ('model.backbone.stem_chanels', 'did you mean stem_channels'),
        ('train_dataloader.batchsize', 'a data loader .*mean batch_size'),
        ('train_dataloader.dataset.dataset.ratio', 'PartialLabels takes no'),
        ('val_cfg.neighbours', 'val_cfg: KNNValLoop .* It takes bank_chunk'),
        ('custom_hooks.3.treshold', 'custom_hooks.3: .* mean threshold'),
    ],
)
def test_arguments_that_nothing_takes(name, message, tmp_path):
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(tmp_path)
    check_arguments(cfg)
    cfg.merge_from_dict({name: 1})
    with pytest.raises(ValueError, match=message):
        build_runner(cfg)


def test_another_loss_over_inherited_arguments_needs_delete():
    cfg = Config.fromfile(CONFIG)
    cfg.model.head.loss = dict(type='UniConLoss', reduction_position='in')
    message = r'model.head.loss: UniConLoss .*loss=dict\(_delete_=True, type'
    with pytest.raises(ValueError, match=message):
        check_arguments(cfg)
