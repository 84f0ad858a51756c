"""What the two command lines in tools/model_converters share."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from mmunimoco.utils.checkpoint import describe_prefixes

from .files import (
    check_free,
    read_weights,
    write_checkpoint,
    write_pickle,
    write_safetensors,
)
from .hugging_face import write_folder
from .metadata import normalization_of
from .outgoing import (
    backbone_of,
    meta_of,
    to_backbone,
    to_detectron2,
    to_timm,
    to_torchvision,
)
from .timm_model import TimmModel, describe_for_timm

FORMATS = (
    *('backbone', 'torchvision', 'timm', 'safetensors', 'detectron2'),
    'huggingface',
)


def export(
    src: str,
    dst: str,
    form: str,
    encoder: str = 'query',
    normalization: Mapping | None = None,
    force: bool = False,
) -> dict:
    """Export the backbone of a checkpoint.

    Args:
        src (str): Checkpoint with the backbone under ``backbone.``.
        dst (str): File to write, for 'huggingface' a folder.
        form (str): One of :data:`FORMATS`.
        encoder (str): 'query' or 'momentum'. Defaults to 'query'.
        normalization (Mapping, optional): Replaces what the checkpoint says.
            Defaults to None.
        force (bool): Whether to overwrite. Defaults to False.

    Returns:
        dict: ``meta`` and ``state_dict`` (under ``backbone.``) of what was
        exported, and ``usage``, how to load it, where timm does.

    Raises:
        ValueError: If it cannot be exported so.
        OSError: If a file is missing, in the way, or cannot be written.
        ImportError: If a library is missing.
    """
    path = Path(dst)
    if form != 'huggingface':
        check_free(path, force)
    checkpoint = read_weights(src)
    meta = meta_of(checkpoint)
    if normalization is not None:
        meta['normalization'] = dict(normalization)
    backbone = backbone_of(checkpoint, encoder)
    plain = to_backbone(backbone, meta)
    if form == 'huggingface':
        write_folder(path, backbone, meta, encoder, force)
    elif form == 'backbone':
        write_checkpoint(path, plain)
    elif form == 'torchvision':
        write_checkpoint(path, to_torchvision(backbone, meta))
    elif form == 'timm':
        write_checkpoint(path, to_timm(backbone, meta))
    elif form == 'safetensors':
        model = describe_for_timm(backbone, meta)
        header = dict(
            architecture=model.name,
            model_args=json.dumps(model.args),
        )
        if 'normalization' in plain['meta']:
            header['normalization'] = json.dumps(
                plain['meta']['normalization']
            )
        write_safetensors(path, to_timm(backbone, meta), header)
    elif form == 'detectron2':
        write_pickle(path, to_detectron2(backbone, meta))
    else:
        raise ValueError(
            f'the format must be one of {", ".join(FORMATS)}, not {form!r}'
        )
    if form in ('timm', 'safetensors'):
        plain['usage'] = _usage(describe_for_timm(backbone, meta), dst)
    return plain


def _usage(model: TimmModel, path: str) -> str:
    """How the file is loaded; timm itself would take 6 heads of a ViT-S."""
    text = f'load it with {model.call(str(path))}'
    if model.name.startswith('vit') and 'num_heads' not in model.args:
        text += (
            '\nand num_heads=...: the checkpoint does not say how many heads '
            'the ViT has'
        )
    return text


def add_common(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the arguments that both command lines have."""
    parser.add_argument('src', help='checkpoint to read')
    parser.add_argument('dst', help='what to write')
    for name in ('mean', 'std'):
        parser.add_argument(
            f'--{name}',
            nargs=3,
            type=float,
            metavar=('R', 'G', 'B'),
            help=f'{name} that images of 0 ... 255 were normalised with, '
            'where the file does not say it',
        )
    parser.add_argument('--force', action='store_true', help='overwrite')
    return parser


def normalization(args: argparse.Namespace) -> dict | None:
    """The normalisation that was given on the command line.

    Raises:
        ValueError: If only one of mean and std was given.
    """
    if args.mean is None and args.std is None:
        return None
    if args.mean is None or args.std is None:
        raise ValueError('--mean and --std go together')
    return dict(mean=args.mean, std=args.std, to_rgb=True)


def finish(
    convert: Callable[[argparse.Namespace], dict], args: argparse.Namespace
) -> int:
    """Convert, and say in a few lines what came out or what is wrong.

    Args:
        convert (Callable[[argparse.Namespace], dict]): Returns ``meta`` and
            ``state_dict``.
        args (argparse.Namespace): Its argument.

    Returns:
        int: Exit status.
    """
    try:
        result = convert(args)
    except (OSError, ValueError, ImportError) as error:
        print(f'error: {args.src}: {error}', file=sys.stderr)
        return 1
    known = normalization_of(result['meta'])
    print(f'wrote {args.dst}: {describe_prefixes(result["state_dict"])}')
    if known is None:
        print('normalisation: not known (--mean and --std record it)')
    else:
        order = 'RGB' if known['to_rgb'] else 'BGR'
        print(
            f'normalisation: {order} images of 0 ... 255, '
            f'mean {known["mean"]}, std {known["std"]}'
        )
    if 'usage' in result:
        print(result['usage'])
    return 0
