"""Set a run up from a config and the options of the command line."""

import os
import os.path as osp
from argparse import Namespace
from copy import deepcopy
from datetime import timedelta

import torch.distributed as torch_dist
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner


def merge_train_options(cfg: Config, args: Namespace) -> Config:
    """Apply the options of ``tools/train.py``.

    Args:
        cfg (Config): The config; changed in place.
        args (Namespace): ``config``, ``work_dir``, ``resume``, ``amp``,
            ``no_validate``, ``auto_scale_lr``, ``no_pin_memory``,
            ``no_persistent_workers``, ``cfg_options``, ``launcher``.

    Returns:
        Config: The same config.

    Raises:
        ValueError: If ``--auto-scale-lr`` is asked of a config that does not
            say for which batch size its learning rate is.
    """
    _merge_common(cfg, args)
    if args.no_validate:
        for field in ('val_cfg', 'val_dataloader', 'val_evaluator'):
            cfg[field] = None
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume is None and was_restarted():
        args.resume = 'auto'
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.auto_scale_lr:
        if 'auto_scale_lr' not in cfg:
            raise ValueError(
                '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=N) '
                f'in {args.config}.'
            )
        cfg.auto_scale_lr.enable = True
    for field in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        _set_loader_defaults(
            cfg, field, args, dict(pin_memory=True, persistent_workers=True)
        )
        if cfg.get(field) is not None and args.no_persistent_workers:
            cfg[field].persistent_workers = False
    _merge_cfg_options(cfg, args)
    return cfg


def was_restarted() -> bool:
    """Whether torchrun or Slurm has started this run before.

    Such a run goes on from its last checkpoint, asked to or not.

    Returns:
        bool: False for the first start, and for any by hand.
    """
    counts = ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT')
    return any(os.environ.get(name, '0') not in ('', '0') for name in counts)


def merge_test_options(cfg: Config, args: Namespace) -> Config:
    """Apply the options of ``tools/test.py``.

    Args:
        cfg (Config): The config; changed in place.
        args (Namespace): ``config``, ``checkpoint``, ``work_dir``, ``amp``,
            ``show``, ``show_dir``, ``interval``, ``wait_time``,
            ``no_pin_memory``, ``tta``, ``cfg_options``, ``launcher``.

    Returns:
        Config: The same config.

    Raises:
        ValueError: If pictures are asked of a config without a
            visualization hook.
    """
    _merge_common(cfg, args)
    cfg.load_from = args.checkpoint
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir is not None:
        _enable_pictures(cfg, args)
    if args.tta:
        _enable_tta(cfg)
    _set_loader_defaults(cfg, 'test_dataloader', args, dict(pin_memory=True))
    _merge_cfg_options(cfg, args)
    return cfg


def build_runner(cfg: Config) -> Runner:
    """Build the runner, after what this machine needs for several processes.

    Args:
        cfg (Config): The merged config.

    Returns:
        Runner: The runner that the config asks for.
    """
    prepare_processes(cfg)
    _add_preflight_checks(cfg)
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


def prepare_processes(cfg: Config) -> None:
    """Let several processes run where there is no accelerator.

    mmengine's launchers call ``torch.cuda.set_device`` and wrap the model
    for a GPU, so on a CPU the gloo group is made here, before the runner,
    and the wrapper is told that there is no device to choose. SyncBN has no
    CPU implementation and is left out, with a word in the log. As with a GPU
    ``env_cfg.dist_cfg.timeout`` is for how many seconds a process waits for
    another.

    Args:
        cfg (Config): The config; changed in place where needed.

    Raises:
        ValueError: If there is no accelerator and the launcher is not
            'pytorch', or the timeout is not a positive number.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none' or get_device() != 'cpu':
        return
    if launcher != 'pytorch':
        raise ValueError(
            f'no accelerator is available and --launcher {launcher} needs '
            'one; on a CPU start with tools/dist_train.sh or '
            'tools/dist_test.sh.'
        )
    if not torch_dist.is_initialized():
        torch_dist.init_process_group('gloo', **_timeout(cfg))
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)
    if cfg.pop('sync_bn', None):
        print_log('SyncBN is left out: it does not run on a CPU.')


def _timeout(cfg: Config) -> dict:
    """How long the processes wait for each other, where the config says it."""
    settings = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    seconds = settings.get('timeout')
    if seconds is None:
        return {}
    if not isinstance(seconds, (int, float)) or not seconds > 0:
        raise ValueError(
            'env_cfg.dist_cfg.timeout must be a positive number of seconds, '
            f'got {seconds!r}'
        )
    return dict(timeout=timedelta(seconds=seconds))


def _merge_common(cfg: Config, args: Namespace) -> None:
    """Launcher and work folder: command line, then config, then its name."""
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        name = osp.splitext(osp.basename(args.config))[0]
        cfg.work_dir = osp.join('./work_dirs', name)


def _set_loader_defaults(
    cfg: Config, field: str, args: Namespace, defaults: dict
) -> None:
    """Fill what a data loader's config leaves open."""
    if cfg.get(field) is None:
        return
    defaults = dict(defaults, collate_fn=dict(type='default_collate'))
    loader = ConfigDict(defaults)
    loader.update(cfg[field])
    if args.no_pin_memory:
        loader.pin_memory = False
    cfg[field] = loader


def _merge_cfg_options(cfg: Config, args: Namespace) -> None:
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    for field in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(field)
        # torch refuses persistent workers where there are none.
        if loader is not None and loader.get('num_workers', 0) == 0:
            loader.persistent_workers = False


def _enable_pictures(cfg: Config, args: Namespace) -> None:
    if 'visualization' not in cfg.default_hooks:
        raise ValueError(
            '--show and --show-dir need visualization='
            "dict(type='VisualizationHook') in default_hooks of "
            f'{args.config}.'
        )
    cfg.default_hooks.visualization.update(
        enable=True,
        show=args.show,
        wait_time=args.wait_time,
        out_dir=args.show_dir,
        interval=args.interval,
    )


def _enable_tta(cfg: Config) -> None:
    """Average over flips, unless the config has its own ``tta_model``."""
    if 'tta_model' not in cfg:
        cfg.tta_model = dict(type='mmpretrain.AverageClsScoreTTA')
    if 'tta_pipeline' not in cfg:
        pipeline = deepcopy(cfg.test_dataloader.dataset.pipeline)
        flips = [dict(type='RandomFlip', prob=p) for p in (1.0, 0.0)]
        pipeline[-1] = dict(
            type='TestTimeAug', transforms=[flips, [pipeline[-1]]]
        )
        cfg.tta_pipeline = pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def _add_preflight_checks(cfg: Config) -> None:
    """Add ``PreflightHook`` to a config that does not have it."""
    hooks = list(cfg.get('custom_hooks') or [])
    if not any(
        str(hook.get('type')).endswith('PreflightHook') for hook in hooks
    ):
        hooks.append(dict(type='mmpretrain.PreflightHook'))
    cfg.custom_hooks = hooks
