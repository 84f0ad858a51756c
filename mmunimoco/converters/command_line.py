"""Common parts of the two commands in tools/model_converters."""

import argparse
import errno
import math
import sys
from collections.abc import Callable
from pathlib import Path

from mmunimoco.utils.checkpoint import describe_prefixes
from mmunimoco.utils.normalization import normalization_of_checkpoint


def add_common(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the arguments that both commands have."""
    parser.add_argument('src', help='checkpoint to read')
    parser.add_argument('dst', help='file or folder to write')
    for name in ('mean', 'std'):
        parser.add_argument(
            f'--{name}',
            nargs=3,
            type=float,
            metavar=('R', 'G', 'B'),
            help=f'{name} by which images of 0 ... 255 were normalized, if '
            'the file does not contain it',
        )
    parser.add_argument('--force', action='store_true', help='overwrite')
    return parser


def normalization(args: argparse.Namespace) -> dict | None:
    """Return the normalization given on the command line.

    Warns of statistics that look like those of images of 0 ... 1.

    Raises:
        ValueError: If only one of mean and std is given, a number is not
            finite, or a std is not positive.
    """
    if args.mean is None and args.std is None:
        return None
    if args.mean is None or args.std is None:
        raise ValueError('--mean and --std are given together or not at all')
    if not all(map(math.isfinite, args.mean)):
        raise ValueError(f'--mean must be finite numbers, got {args.mean}')
    if not all(0 < value < math.inf for value in args.std):
        raise ValueError(f'--std must be positive numbers, got {args.std}')
    # Not refused: images of almost one color do have them. A std of 1 is
    # usual, for images that are only shifted.
    if max(args.std) < 1:
        print(
            f'warning: --std {args.std} is for images of 0 ... 255; multiply '
            '--mean and --std by 255 if they were for images of 0 ... 1',
            file=sys.stderr,
        )
    return dict(mean=args.mean, std=args.std, to_rgb=True)


def run(
    convert: Callable[[argparse.Namespace], dict],
    args: argparse.Namespace,
    prog: str | None = None,
) -> int:
    """Convert, and print what was written or what is wrong.

    Args:
        convert (Callable[[argparse.Namespace], dict]): Returns ``meta``,
            ``state_dict`` and perhaps ``usage``.
        args (argparse.Namespace): Its argument.
        prog (str, optional): Name of the command. Defaults to the script's.

    Returns:
        int: Exit status.
    """
    try:
        result = convert(args)
    except (OSError, ValueError, ImportError) as error:
        prog = prog or Path(sys.argv[0]).name
        # Errors of a full disk name no file.
        full = getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT)
        where = args.dst if full else args.src
        where = '' if where in str(error) else f'{where}: '
        print(f'{prog}: error: {where}{error}', file=sys.stderr)
        return 1
    print(f'wrote {args.dst}: {describe_prefixes(result["state_dict"])}')
    known = normalization_of_checkpoint(result)
    if known is None:
        print('normalization: unknown (--mean and --std record it)')
    else:
        print(f'normalization of images of 0 ... 255: {known}')
    if 'usage' in result:
        print(result['usage'])
    return 0
