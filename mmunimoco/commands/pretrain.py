"""``mmunimoco pretrain``: from a folder of images to a trained backbone."""

from argparse import ArgumentParser, Namespace
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from shlex import quote

from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint

from mmunimoco.converters.files import check_free
from mmunimoco.engine.checks.work_folder import REFUSED, lock_folder
from mmunimoco.engine.collapse import BASELINE
from mmunimoco.engine.exact.checkpoint_files import LAST
from mmunimoco.engine.launch import build_runner, goes_on
from mmunimoco.engine.schedules import extend_config
from mmunimoco.utils.atomic import write_atomic
from mmunimoco.utils.installed import configs_dir

from .image_folder import (
    EXTENSIONS,
    UNLABELED,
    ImageFolder,
    find_splits,
    hold_out,
    keep_labels,
    read_folder,
)
from .plan import CONFIG, Machine, Plan, read_lists_of

VAL_SHARE = 0.1


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        'folder',
        type=Path,
        help='images, with a sub-folder for each class or without; or a '
        'folder with train/ and val/',
    )
    parser.add_argument(
        '--labels',
        type=Path,
        metavar='FILE',
        help='images that keep the label of their folder, one a line; or '
        '"name class" a line',
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='output folder (default: work_dirs/<name of the folder>)',
    )
    parser.add_argument(
        '--epochs',
        type=int,
        help='length of the run; with --resume, a longer one',
    )
    parser.add_argument('--seed', type=int, help='default: 0')
    parser.add_argument(
        '--val-share',
        type=float,
        metavar='SHARE',
        help='share of the labeled images that is held out for validation by '
        f'kNN where there is no val/ (default: {VAL_SHARE}; 0 for none)',
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        '--dry-run',
        action='store_true',
        help='print the plan, write the config, and stop',
    )
    mode.add_argument(
        '--resume',
        action='store_true',
        help='train on from the last checkpoint in the output folder',
    )


def main(args: Namespace) -> None:
    """Run the command.

    Raises:
        ValueError: If an argument or the folder does not serve.
        OSError: If files cannot be read or written.
    """
    _check(args)
    out = args.out or Path('work_dirs') / args.folder.resolve().name
    config = out.resolve() / CONFIG
    if not args.dry_run and _is_begun(config) and goes_on(out):
        print(f'restarted   the run in {out} goes on')
        args.resume = True
    if args.resume:
        if not config.is_file():
            raise FileNotFoundError(
                f'there is no {config} to resume; leave out --resume'
            )
    else:
        _write_config(args, config)
    if args.dry_run:
        script = quote(str(configs_dir().parent / 'tools/train.py'))
        print(
            f'To train: python {script} {quote(str(config))} '
            f'--work-dir {quote(str(out))}'
        )
        return
    cfg = Config.fromfile(config)
    cfg.work_dir = str(out)
    cfg.resume = args.resume
    read_lists_of(cfg, out)
    if args.resume:
        _check_same_images(args.folder, cfg)
        if args.epochs not in (None, cfg.train_cfg.max_epochs):
            cfg = extend_config(cfg, args.epochs)
    runner = build_runner(cfg, verbose=False)
    try:
        runner.train()
    except KeyboardInterrupt:
        again = '--resume'
        if args.resume and args.epochs is not None:
            again += f' --epochs {args.epochs}'
        raise KeyboardInterrupt(_how_to_continue(Path(out), again)) from None
    _report(runner, args.folder)


def read_images(
    folder: Path, labels: Path | None, share: float, seed: int
) -> tuple[ImageFolder, ImageFolder | None]:
    """Training and validation images of a folder.

    Args:
        folder (Path): As in the command.
        labels (Path, optional): As in the command.
        share (float): As in the command.
        seed (int): As in the command.

    Returns:
        tuple[ImageFolder, ImageFolder | None]: The second is None if there
        are not enough labels to validate.
    """
    train_root, val_root = find_splits(folder)
    _note_unused(folder, train_root, val_root)
    train = read_folder(train_root)
    if labels is not None:
        train = keep_labels(train, labels)
    if len(set(train.labels) - {UNLABELED}) < 2:
        return _without_classes(train), None
    if val_root is None:
        train, val = hold_out(train, share, seed)
    else:
        val = _same_classes(read_folder(val_root), train)
    return train, val if len(val) and train.num_labeled else None


def _check(args: Namespace) -> None:
    if args.epochs is not None and args.epochs < 1:
        raise ValueError(f'--epochs must be at least 1, got {args.epochs}')
    given = {
        '--labels': args.labels,
        '--seed': args.seed,
        '--val-share': args.val_share,
    }
    kept = [name for name, value in given.items() if value is not None]
    if args.resume and kept:
        raise ValueError(
            f'--resume keeps what the run began with: leave out '
            f'{", ".join(kept)}'
        )
    if args.val_share is not None and not 0 <= args.val_share < 1:
        raise ValueError(
            f'--val-share must be in [0, 1), got {args.val_share}'
        )


def _is_begun(config: Path) -> bool:
    """Whether there is a run; a dry one leaves nothing but the inputs."""
    inputs, out = config.parent, config.parents[1]
    return config.exists() and any(path != inputs for path in out.iterdir())


def _write_config(args: Namespace, config: Path) -> None:
    """Look at the images, print the plan, write the config and the lists."""
    inputs, out = config.parent, config.parents[1]
    if _is_begun(config):
        # A restart must not go on with it. Not if it is training, or is where
        # nothing can be written.
        with suppress(OSError), lock_folder(out) or nullcontext():
            (out / REFUSED).touch()
        raise ValueError(
            f'there is a run in {out}: continue it with --resume, or give '
            'another --out'
        )
    check_free(config, force=True)
    seed = args.seed or 0
    share = VAL_SHARE if args.val_share is None else args.val_share
    train, val = read_images(args.folder, args.labels, share, seed)
    _describe(train)
    if val is not None and val.root != train.root:
        _describe_left_out(val)
    plan = Plan.choose(train, Machine.here(), args.epochs)
    print('\n'.join(plan.lines(train, val)))
    (inputs / 'val.txt').unlink(missing_ok=True)
    write_atomic(inputs / 'train.txt', _annotations(train))
    classes = ''.join(f'{name}\n' for name in train.classes)
    write_atomic(inputs / 'classes.txt', classes)
    if val is not None:
        write_atomic(inputs / 'val.txt', _annotations(val))
    write_atomic(config, plan.config(inputs, train, val, seed))
    print(f'config      {config}')


def _check_same_images(folder: Path, cfg: Config) -> None:
    """Refuse to go on with other images than those that are named."""
    before = Path(cfg.get('images', {}).get('data_prefix') or folder)
    now, _ = find_splits(folder)
    if before.resolve() != now.resolve():
        raise ValueError(
            f'the run in {cfg.work_dir} is of {before}, not of {now}: give '
            'its folder, or another --out'
        )


def _describe(images: ImageFolder) -> None:
    labeled = images.num_labeled
    print(
        f'images      {len(images)} in {images.root}, shorter side '
        f'{images.side:g} pixels (median)'
    )
    share = f'({100 * labeled / len(images):.1f} %)'
    found = f'{labeled} images {share} of {len(images.classes)} classes'
    print(f'labels      {found if labeled else "none"}')
    _describe_left_out(images)


def _describe_left_out(images: ImageFolder) -> None:
    if images.unreadable:
        shown = ', '.join(images.unreadable[:3])
        print(
            f'left out    {len(images.unreadable)} unreadable images in '
            f'{images.root}: {shown}'
        )
    if images.others:
        kinds = ', '.join(f'{n} {e}' for e, n in images.others.most_common(5))
        print(f'left out    other files in {images.root}: {kinds}')


def _note_unused(folder: Path, train: Path, val: Path | None) -> None:
    """Name what lies beside the folders train and val."""
    unused = [
        path.name
        for path in sorted(folder.iterdir())
        if path not in (train, val)
        and not path.name.startswith('.')
        and (path.is_dir() or path.suffix.lower() in EXTENSIONS)
    ]
    if train != folder and unused:
        print(
            f'note        not used, as they are not in {train}: '
            + ', '.join(unused[:5])
        )


def _without_classes(train: ImageFolder) -> ImageFolder:
    """Forget the labels, which are all the same."""
    used = [train.classes[i] for i in set(train.labels) - {UNLABELED}]
    if used:
        print(
            f'note        one class alone ({used[0]}) says nothing '
            'about images, so all count as unlabeled'
        )
    return replace(train, labels=[UNLABELED] * len(train), classes=())


def _same_classes(val: ImageFolder, train: ImageFolder) -> ImageFolder:
    """Give validation images the class ids of the training images."""
    unknown = sorted(set(val.classes) - set(train.classes))
    if unknown:
        raise ValueError(
            f'{val.root} has classes that {train.root} lacks: '
            + ', '.join(unknown[:5])
        )
    ids = [train.classes.index(name) for name in val.classes]
    labeled = [i for i, label in enumerate(val.labels) if label >= 0]
    if len(labeled) < len(val):
        print(
            f'note        {len(val) - len(labeled)} images in {val.root} have '
            'no class, so they cannot validate'
        )
    val = val.subset(labeled)
    labels = [ids[label] for label in val.labels]
    return replace(val, labels=labels, classes=train.classes)


def _annotations(images: ImageFolder) -> str:
    pairs = zip(images.names, images.labels, strict=True)
    return ''.join(f'{name} {label}\n' for name, label in pairs)


def _how_to_continue(out: Path, again: str) -> str:
    last = out / LAST
    if not last.is_file():
        return f'no checkpoint was written yet, {again} begins anew'
    name = Path(last.read_text().strip()).name
    return f'{again} continues from {name}'


def _report(runner: Runner, folder: Path) -> None:
    """Say what was learned, and what comes next."""
    hub, name = runner.message_hub, 'knn/top1'
    before = (hub.get_info(BASELINE) or {}).get(name)
    if f'val/{name}' in hub.log_scalars:
        scores = hub.get_scalar(f'val/{name}').data[0]
        text = f'kNN top-1   {scores[-1]:.1f} % (best {max(scores):.1f})'
        if before is not None:
            text += f', {before:.1f} before training'
        print(text)
    checkpoint = quote(str(find_latest_checkpoint(runner.work_dir)))
    print(f'checkpoint  {checkpoint}\nNext:')
    source = quote(str(folder))
    validated = runner.cfg.val_dataloader is not None
    for command in (
        *([f'eval {checkpoint}'] if validated else []),
        f'embed {checkpoint} {source} --out features.npz',
        f'export {checkpoint} backbone.pth --to backbone',
    ):
        print(f'  mmunimoco {command}')
