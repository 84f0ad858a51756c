"""Options of the command line, and runs of several processes on a CPU."""

import sys
from datetime import timedelta

import pytest
from mmengine.config import Config
from noise_runs import noise_runner

from mmunimoco.engine import launch
from mmunimoco.engine.launch import (
    build_runner,
    merge_test_options,
    merge_train_options,
    parse_options,
    prepare_processes,
)


def parse(name, monkeypatch, *arguments):
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(sys, 'argv', ['tool', *arguments])
    return parse_options(name, arguments)


def config():
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


def test_amp_on_a_cpu_is_refused(monkeypatch):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    args = parse('train', monkeypatch, 'configs/x.py', '--amp')
    with pytest.raises(ValueError, match='--amp needs a GPU.*Leave it out'):
        merge_train_options(config(), args)
    monkeypatch.setattr(launch, 'get_device', lambda: 'cuda')
    cfg = merge_train_options(config(), args)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'


def test_blanks_in_a_path_stay(monkeypatch):
    options = 'data_root=my images/new ones', 'a.b=1, 2'
    args = parse('train', monkeypatch, 'x.py', '--cfg-options', *options)
    assert args.cfg_options['data_root'] == 'my images/new ones'
    assert args.cfg_options['a.b'] == [1, 2]
    with pytest.raises(SystemExit, match='--cfg-options takes key=value'):
        parse('train', monkeypatch, 'x.py', '--cfg-options', 'a.b', '1')


def test_none_stands_for_random_weights(monkeypatch):
    args = parse('test', monkeypatch, 'configs/x.py', 'none')
    assert merge_test_options(config(), args).load_from is None


def test_train_options(monkeypatch):
    arguments = (
        'configs/x.py --no-validate --auto-scale-lr --resume --launcher '
        'pytorch --cfg-options train_dataloader.num_workers=0 model.b=1'
    )
    args = parse('train', monkeypatch, *arguments.split())
    cfg = merge_train_options(config(), args)
    assert cfg.work_dir == './work_dirs/x' and cfg.launcher == 'pytorch'
    assert cfg.resume and cfg.load_from is None
    assert (
        cfg.auto_scale_lr.enable and cfg.val_cfg is None and cfg.model.b == 1
    )
    # torch refuses persistent workers without workers.
    assert cfg.train_dataloader.persistent_workers is False
    assert cfg.test_dataloader.persistent_workers is True


@pytest.mark.parametrize(
    ('count', 'resume'), [(None, False), ('0', False), ('1', True)]
)
@pytest.mark.parametrize(
    'variable', ['TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT']
)
def test_restarted_runs_resume(monkeypatch, variable, count, resume):
    if count is not None:
        monkeypatch.setenv(variable, count)
    args = parse('train', monkeypatch, 'x.py')
    assert merge_train_options(config(), args).get('resume', False) == resume


@pytest.mark.parametrize(
    'start', [['--resume', 'a.pth'], ['--cfg-options', 'load_from=a.pth']]
)
@pytest.mark.parametrize('file', ['last_checkpoint', 'epoch_1.pth'])
def test_a_restart_goes_on_from_the_last_checkpoint(
    monkeypatch, tmp_path, start, file
):
    """Not from that of the first start, unless there is no other yet."""
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    command = ['x.py', '--work-dir', str(tmp_path), *start]
    args = parse('train', monkeypatch, *command)
    cfg = merge_train_options(config(), args)
    assert cfg.load_from == 'a.pth'
    assert cfg.get('resume', False) == ('--resume' in start)
    # A kill may come between the first checkpoint and last_checkpoint.
    (tmp_path / file).write_text('epoch_1.pth')
    cfg = merge_train_options(config(), args)
    assert cfg.resume and cfg.load_from is None


@pytest.mark.parametrize('options', [[], ['--cfg-options', 'load_from=a.pth']])
def test_resume_begins_with_the_weights_to_start_from(
    monkeypatch, tmp_path, options
):
    """As of studies, and when Slurm calls a run again."""
    command = ['x.py', '--work-dir', str(tmp_path), *options, '--resume']
    args = parse('train', monkeypatch, *command)
    cfg = Config(config().to_dict() | dict(load_from='a.pth'))
    merged = merge_train_options(cfg.copy(), args)
    assert merged.load_from == 'a.pth' and not merged.get('resume')
    (tmp_path / 'last_checkpoint').write_text('epoch_1.pth')
    merged = merge_train_options(cfg.copy(), args)
    assert merged.resume and merged.load_from is None


def test_a_run_that_was_refused_is_not_another_when_it_is_restarted(
    monkeypatch, tmp_path
):
    """It has failed, so torchrun restarts it."""
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    args = parse('train', monkeypatch, 'x.py', '--work-dir', str(tmp_path))
    hooks = [dict(type='PreflightHook')]
    noise_runner(tmp_path, hooks=hooks).train()
    with pytest.raises(FileExistsError):
        noise_runner(tmp_path, hooks=hooks).train()
    assert not merge_train_options(config(), args).get('resume')
    # The next one may be there, and be restarted.
    noise_runner(tmp_path, hooks=hooks, resume=True).train()
    assert merge_train_options(config(), args).resume


def test_test_options(monkeypatch):
    arguments = ['x.py', 'a.pth', '--amp', '--show-dir', 's', '--tta']
    args = parse('test', monkeypatch, *arguments)
    cfg = merge_test_options(config(), args)
    assert cfg.load_from == 'a.pth' and cfg.test_cfg.fp16
    assert cfg.default_hooks.visualization.out_dir == 's'
    assert cfg.model.type == 'mmpretrain.AverageClsScoreTTA'


def test_changes_of_the_model_reach_it_with_test_time_augmentation(
    monkeypatch,
):
    changes = ['model.head.num_classes=7', 'model.module.head.topk=1']
    changes += ['test_dataloader.batch_size=9']
    arguments = ['x.py', 'a.pth', '--tta', '--cfg-options', *changes]
    args = parse('test', monkeypatch, *arguments)
    cfg = config()
    cfg.model = dict(type='ImageClassifier', head=dict(num_classes=2, topk=5))
    cfg = merge_test_options(cfg, args)
    assert set(cfg.model) == {'type', 'module'}
    assert cfg.model.module.head == dict(num_classes=7, topk=1)
    assert cfg.test_dataloader.batch_size == 9


def test_unusable_options_are_named(monkeypatch):
    cfg = config()
    cfg.pop('auto_scale_lr')
    args = parse('train', monkeypatch, 'x.py', '--auto-scale-lr')
    with pytest.raises(ValueError, match='base_batch_size'):
        merge_train_options(cfg, args)
    cfg.default_hooks.pop('visualization')
    args = parse('test', monkeypatch, 'x.py', 'a.pth', '--show')
    with pytest.raises(ValueError, match='VisualizationHook'):
        merge_test_options(cfg, args)


@pytest.mark.parametrize(
    'given', [[], [dict(type='PreflightHook')], [dict(type='X')]]
)
def test_every_run_gets_the_checks_once(monkeypatch, given):
    monkeypatch.setattr(launch.Runner, 'from_cfg', lambda cfg: cfg)
    hooks = build_runner(Config(dict(custom_hooks=given))).custom_hooks
    kinds = [hook.type.rpartition('.')[2] for hook in hooks]
    assert kinds.count('PreflightHook') == 1
    assert len(kinds) == max(1, len(given) + ('X' in kinds))


def test_only_torchrun_works_without_an_accelerator(monkeypatch):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    cfg = Config(dict(launcher='none'))
    prepare_processes(cfg)
    assert cfg.to_dict() == dict(launcher='none')
    with pytest.raises(ValueError, match='dist_train.sh'):
        prepare_processes(Config(dict(launcher='slurm')))


def test_timeout_applies_on_a_cpu_too(monkeypatch):
    calls = []
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(
        launch.torch_dist,
        'init_process_group',
        lambda *args, **options: calls.append((args, options)),
    )

    def prepare(**dist_cfg):
        env = dict(dist_cfg=dict(backend='nccl', **dist_cfg))
        cfg = Config(dict(launcher='pytorch', env_cfg=env, sync_bn='torch'))
        cfg.find_unused_parameters = True
        prepare_processes(cfg)
        assert 'sync_bn' not in cfg
        # What mmengine chooses on a GPU, but for the device.
        assert cfg.model_wrapper_cfg == dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=True,
            device_ids=None,
        )

    prepare()
    prepare(timeout=7)
    assert calls == [
        (('gloo',), {}),
        (('gloo',), dict(timeout=timedelta(seconds=7))),
    ]
    for wrong in (0, -1, '7'):
        with pytest.raises(ValueError, match='env_cfg.dist_cfg.timeout'):
            prepare(timeout=wrong)


@pytest.mark.parametrize(
    ('name', 'merge'),
    [('train', merge_train_options), ('test', merge_test_options)],
)
def test_misspelt_options_are_refused(monkeypatch, name, merge):
    command = ['x.py', *['a.pth'] * (name == 'test'), '--cfg-options']
    args = parse(name, monkeypatch, *command, 'train_dataloder.batch_size=2')
    with pytest.raises(ValueError, match='did you mean train_dataloader'):
        merge(config(), args)


def test_accelerators_are_left_to_mmengine(monkeypatch):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cuda')
    cfg = Config(dict(launcher='pytorch', sync_bn='torch'))
    prepare_processes(cfg)
    assert cfg.to_dict() == dict(launcher='pytorch', sync_bn='torch')
