"""Command line options change a config as mmpretrain's tools do."""

import importlib.util
import sys
from datetime import timedelta
from pathlib import Path

import mmpretrain
import pytest
from mmengine.config import Config

from mmunimoco.engine.launch import (
    merge_test_options,
    merge_train_options,
    prepare_processes,
)

ROOT = Path(__file__).parents[2]


def _module(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


THEIRS = Path(mmpretrain.__file__).parent / '.mim/tools'
TRAIN = [
    _module(folder / 'train.py', f'train_{i}')
    for i, folder in enumerate((ROOT / 'tools', THEIRS))
]
TEST = [
    _module(folder / 'test.py', f'test_{i}')
    for i, folder in enumerate((ROOT / 'tools', THEIRS))
]


def _config():
    loader = dict(
        batch_size=4,
        num_workers=2,
        dataset=dict(pipeline=[dict(type='A'), dict(type='PackInputs')]),
    )
    return Config(
        dict(
            model=dict(type='M'),
            train_dataloader=loader,
            val_dataloader=dict(loader, pin_memory=False),
            test_dataloader=dict(
                loader, collate_fn=dict(type='pseudo_collate')
            ),
            train_cfg=dict(max_epochs=1),
            val_cfg=dict(),
            test_cfg=dict(),
            val_evaluator=dict(),
            optim_wrapper=dict(type='OptimWrapper'),
            auto_scale_lr=dict(base_batch_size=8),
            default_hooks=dict(visualization=dict(type='VisualizationHook')),
        )
    )


def _parse(module, monkeypatch, *arguments):
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(sys, 'argv', ['tool', *arguments])
    return module.parse_args()


@pytest.mark.parametrize(
    'options',
    [
        '',
        '--work-dir w',
        '--resume',
        '--resume a.pth',
        '--amp',
        '--no-validate',
        '--auto-scale-lr',
        '--no-pin-memory',
        '--no-persistent-workers',
        '--launcher slurm',
        '--amp --cfg-options model.type=N optim_wrapper.loss_scale=8.',
        '--cfg-options a.b="[(1,2),(3,4)]" train_dataloader.batch_size=2',
    ],
)
def test_train_options_are_mmpretrains(options, monkeypatch):
    merged = []
    for module, merge in zip(
        TRAIN, (merge_train_options, TRAIN[1].merge_args), strict=True
    ):
        args = _parse(module, monkeypatch, 'configs/x.py', *options.split())
        merged.append(merge(_config(), args).to_dict())
    assert merged[0] == merged[1]


@pytest.mark.parametrize(
    'options',
    [
        '',
        '--work-dir w --amp',
        '--show --interval 3 --wait-time 1',
        '--show-dir pictures',
        '--no-pin-memory --launcher pytorch',
        '--tta',
        '--cfg-options test_cfg.k=3',
    ],
)
def test_test_options_are_mmpretrains(options, monkeypatch):
    merged = []
    for module, merge in zip(
        TEST, (merge_test_options, TEST[1].merge_args), strict=True
    ):
        args = _parse(module, monkeypatch, 'x.py', 'a.pth', *options.split())
        merged.append(merge(_config(), args).to_dict())
    assert merged[0] == merged[1]


def test_no_workers_means_none_that_persist(monkeypatch):
    args = _parse(
        TRAIN[0],
        monkeypatch,
        *('x.py', '--cfg-options', 'train_dataloader.num_workers=0'),
    )
    cfg = merge_train_options(_config(), args)
    assert cfg.train_dataloader.persistent_workers is False
    assert cfg.val_dataloader.persistent_workers is True


def test_unusable_options_are_named(monkeypatch):
    cfg = _config()
    cfg.pop('auto_scale_lr')
    args = _parse(TRAIN[0], monkeypatch, 'x.py', '--auto-scale-lr')
    with pytest.raises(ValueError, match='base_batch_size'):
        merge_train_options(cfg, args)
    cfg.default_hooks.pop('visualization')
    args = _parse(TEST[0], monkeypatch, 'x.py', 'a.pth', '--show')
    with pytest.raises(ValueError, match='VisualizationHook'):
        merge_test_options(cfg, args)
    with pytest.raises(SystemExit):
        _parse(TEST[0], monkeypatch, 'x.py', 'a.pth', '--out-item', 'pred')


def test_only_torchrun_works_without_an_accelerator(monkeypatch):
    monkeypatch.setattr('mmunimoco.engine.launch.get_device', lambda: 'cpu')
    cfg = Config(dict(launcher='none'))
    prepare_processes(cfg)
    assert cfg.to_dict() == dict(launcher='none')
    with pytest.raises(ValueError, match='dist_train.sh'):
        prepare_processes(Config(dict(launcher='slurm')))


def test_timeout_counts_on_a_cpu_too(monkeypatch):
    calls = []
    launch = 'mmunimoco.engine.launch'
    monkeypatch.setattr(f'{launch}.get_device', lambda: 'cpu')
    monkeypatch.setattr(
        f'{launch}.torch_dist.init_process_group',
        lambda *args, **options: calls.append((args, options)),
    )

    def prepare(**dist_cfg):
        env = dict(dist_cfg=dict(backend='nccl', **dist_cfg))
        prepare_processes(Config(dict(launcher='pytorch', env_cfg=env)))

    prepare()
    prepare(timeout=7)
    assert calls == [
        (('gloo',), {}),
        (('gloo',), dict(timeout=timedelta(seconds=7))),
    ]
    for wrong in (0, -1, '7'):
        with pytest.raises(ValueError, match='env_cfg.dist_cfg.timeout'):
            prepare(timeout=wrong)


def test_accelerators_are_left_to_mmengine(monkeypatch):
    monkeypatch.setattr('mmunimoco.engine.launch.get_device', lambda: 'cuda')
    cfg = Config(dict(launcher='pytorch', sync_bn='torch'))
    prepare_processes(cfg)
    assert cfg.to_dict() == dict(launcher='pytorch', sync_bn='torch')
