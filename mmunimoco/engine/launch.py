"""Set up a run from a config and the options of the command line."""

import logging
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import mmpretrain
import torch.distributed as torch_dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.registry import RUNNERS, init_default_scope
from mmengine.runner import Runner

from mmunimoco.models.collectives import await_gloo_at_exit

from .checks.config_fields import check_arguments, check_fields
from .checks.config_values import accumulation
from .checks.work_folder import REFUSED, has_checkpoint
from .logs import BriefRunner
from .pretrained_init import NO_CHECKPOINT
from .schedules import extend_config


def parse_options(tool: str, arguments: Sequence[str]) -> Namespace:
    """Parse the options of a tool: those of mmpretrain's and our own.

    Args:
        tool (str): ``'train'`` or ``'test'``.
        arguments (Sequence[str]): The command line without the script.

    Returns:
        Namespace: mmpretrain's options and ``verbose``; of ``train`` also
        ``extend_to``.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(
        *('-v', '--verbose'),
        action='store_true',
        help='print the environment, the config and the hooks too, which the '
        'log file has in any case',
    )
    if tool == 'train':
        parser.add_argument(
            '--extend-to',
            type=int,
            metavar='N',
            help='with --resume: train for N epochs (or iterations) in all, '
            'and stretch the schedule accordingly',
        )
    own, others = parser.parse_known_args(arguments)
    if {'-h', '--help'} & set(others):
        print(f'Besides the options below:\n{parser.format_help()}')
    sys.argv[1:] = others  # what mmpretrain's parser reads
    try:
        args = mmpretrain_tool(tool).parse_args()
    except ValueError:  # of mmengine's DictAction
        sys.exit('error: --cfg-options takes key=value')
    vars(args).update(vars(own))
    for item in others:
        name, _, value = item.partition('=')
        is_list = ',' in value or value.startswith(('[', '('))
        if ' ' in value and not is_list and name in (args.cfg_options or {}):
            args.cfg_options[name] = value  # mmengine removes the blanks
    return args


def merge_train_options(cfg: Config, args: Namespace) -> Config:
    """Apply the options of ``tools/train.py``, as mmpretrain's does.

    In addition, ``--resume`` without a file starts from ``load_from``, if
    there is one, until the work folder has a checkpoint. A run that torchrun
    or Slurm has restarted resumes from its last checkpoint, whatever it
    started from (without one it starts again as the command says).
    ``--extend-to`` makes a resumed run longer.

    Args:
        cfg (Config): The config; changed in place, and returned.
        args (Namespace): The parsed options of the script.

    Raises:
        ValueError: If ``--auto-scale-lr`` is given and the config does not
            say for which batch size its learning rate is, a run cannot be
            extended, or ``--amp`` is given where there is no accelerator.
    """
    if args.amp and get_device() == 'cpu':
        raise ValueError(
            '--amp needs a GPU, and none is available. Leave it out'
        )
    if args.auto_scale_lr and 'auto_scale_lr' not in cfg:
        raise ValueError(
            '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=N) in '
            f'{args.config}.'
        )
    check_fields(cfg, args.cfg_options or {})
    # mmpretrain's would drop load_from, whether there is a checkpoint or not,
    # but not that of --cfg-options, from which it would resume.
    is_auto = args.resume == 'auto'
    own = Namespace(**vars(args) | dict(resume=None)) if is_auto else args
    cfg = _stop_persisting(mmpretrain_tool('train').merge_args(cfg, own))
    resumes = is_auto or goes_on(Path(cfg.work_dir))
    if resumes and (
        cfg.get('load_from') is None or has_checkpoint(Path(cfg.work_dir))
    ):
        cfg.resume, cfg.load_from = True, None
    if args.extend_to is not None:
        cfg = extend_config(cfg, args.extend_to)
    return cfg


def merge_test_options(cfg: Config, args: Namespace) -> Config:
    """Apply the options of ``tools/test.py``, as mmpretrain's does.

    The checkpoint 'none' stands for random weights.

    Args:
        cfg (Config): The config; changed in place, and returned.
        args (Namespace): The parsed options of the script.

    Raises:
        ValueError: If images are to be shown and the config has no
            visualization hook.
    """
    wants_images = args.show or args.show_dir is not None
    if wants_images and 'visualization' not in cfg.default_hooks:
        raise ValueError(
            '--show and --show-dir need visualization='
            "dict(type='VisualizationHook') in default_hooks of "
            f'{args.config}.'
        )
    options = args.cfg_options or {}
    check_fields(cfg, options)
    if args.tta:
        # mmpretrain merges them after it has wrapped the model.
        inner = {
            name: value
            for name, value in options.items()
            if name.startswith('model.')
            and not name.startswith('model.module.')
        }
        cfg.merge_from_dict(inner)
        rest = {k: v for k, v in options.items() if k not in inner}
        args = Namespace(**vars(args) | dict(cfg_options=rest))
    cfg = _stop_persisting(mmpretrain_tool('test').merge_args(cfg, args))
    if args.checkpoint == NO_CHECKPOINT:
        cfg.load_from = None
        print_log(
            'The weights are random: the checkpoint to test is '
            f'{NO_CHECKPOINT!r}.',
            level=logging.WARNING,
        )
    return cfg


def read_config(
    path: str | Path, changes: Mapping[str, Any] | None = None
) -> Config:
    """Read a config for a tool that builds parts of it without a runner.

    Args:
        path (str | Path): The file.
        changes (Mapping[str, Any], optional): Values by dotted names, as in
            ``--cfg-options``. Defaults to None.

    Returns:
        Config: With the changes, in its default scope.

    Raises:
        ValueError: If a change names a field that nothing reads, or cannot be
            made, or a part of the config does not take an argument.
    """
    cfg, changes = Config.fromfile(path), changes or {}
    check_fields(cfg, changes)
    try:
        cfg.merge_from_dict(changes)
    except (KeyError, TypeError) as error:  # below a list, or a value
        text = ' '.join(map(str, error.args))
        raise ValueError(f'--cfg-options: {text}') from error
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    check_arguments(cfg)
    return cfg


def goes_on(folder: Path) -> bool:
    """Whether torchrun or Slurm has restarted the run of a work folder.

    They also restart one that was refused because the folder has another one.

    Args:
        folder (Path): The work folder.

    Returns:
        bool: Whether to resume what is in it.
    """
    counts = ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT')
    restarted = any(os.environ.get(x, '0') not in ('', '0') for x in counts)
    return restarted and not (folder / REFUSED).exists()


def build_runner(cfg: Config, verbose: bool = True) -> Runner:
    """Build the runner of a merged config, with ``PreflightHook``.

    Args:
        cfg (Config): The config; changed in place.
        verbose (bool): Whether to print the environment, the config and the
            hooks. Defaults to True.

    Returns:
        Runner: A :class:`BriefRunner` unless verbose; the config's
        ``runner_type`` takes precedence.
    """
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    check_arguments(cfg)
    prepare_processes(cfg)
    hooks = list(cfg.get('custom_hooks') or [])
    if not any(str(x.get('type')).endswith('PreflightHook') for x in hooks):
        hooks.append(dict(type='mmpretrain.PreflightHook'))
    cfg.custom_hooks = hooks
    if 'runner_type' in cfg:
        runner = RUNNERS.build(cfg)
    else:
        runner = (Runner if verbose else BriefRunner).from_cfg(cfg)
    if get_world_size() > 1:
        await_gloo_at_exit()
    _count_accumulation(runner, cfg)
    return runner


def _count_accumulation(runner: Runner, cfg: Config) -> None:
    """Let mmengine scale the learning rate to the images of an optimizer step.

    It counts those of one batch. The config stays as it is, so that a dumped
    one can be used again.
    """
    counts, scale = accumulation(cfg), cfg.get('auto_scale_lr') or {}
    if counts == 1 or not scale.get('enable'):
        return
    base = scale['base_batch_size'] / counts
    runner.auto_scale_lr = dict(scale, base_batch_size=base)
    runner.logger.info(
        f'{counts} batches are accumulated for an optimizer step, so the '
        f'learning rate, for {scale["base_batch_size"]} images a step, is '
        f'scaled as if it were for {base:g} images a batch.'
    )


def prepare_processes(cfg: Config) -> None:
    """Let several processes run where there is no accelerator.

    mmengine's launchers call ``torch.cuda.set_device`` and wrap the model for
    a GPU. So on a CPU the gloo group is initialised here, before the runner
    is built, and the wrapper gets no device. SyncBN has no CPU implementation
    and is removed, with a line in the log. As on a GPU,
    ``env_cfg.dist_cfg.timeout`` is the number of seconds that a process waits
    for another.

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
        print_log('SyncBN is removed: it does not run on a CPU.')


def _timeout(cfg: Config) -> dict:
    """The timeout of the process group, if the config has one."""
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


@cache
def mmpretrain_tool(name: str) -> ModuleType:
    """Import a script of mmpretrain's ``tools`` folder.

    Args:
        name (str): ``'train'`` or ``'test'``.

    Returns:
        ModuleType: The script as a module, with ``parse_args``.

    Raises:
        FileNotFoundError: If mmpretrain was installed without its tools.
    """
    path = Path(mmpretrain.__file__).parent / f'.mim/tools/{name}.py'
    if not path.is_file():
        raise FileNotFoundError(
            f'mmpretrain was installed without its tools ({path} is '
            'missing): install it from its wheel, or by `mim install`'
        )
    spec = spec_from_file_location(f'mmpretrain_{name}', path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _stop_persisting(cfg: Config) -> Config:
    """Unset ``persistent_workers`` without workers, which torch refuses."""
    for field in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(field)
        if loader is not None and loader.get('num_workers', 0) == 0:
            loader.persistent_workers = False
    return cfg
