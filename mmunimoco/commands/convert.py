"""Export the backbone of a checkpoint for other projects.

backbone     for mmpretrain, mmdet and mmseg, keys under "backbone."; any
             backbone
torchvision  state dict of a ResNet, without fc
timm         state dict of a ResNet or ViT, for num_classes=0
safetensors  the same, as a safetensors file
detectron2   .pkl of a ResNet
huggingface  folder with config.json, model.safetensors and README.md, which
             timm loads from the Hugging Face Hub
onnx         from RGB images of 0 to 255 to pooled features; any backbone that
             torch can convert (pip install onnx)

  mmunimoco export epoch_200.pth r50.pth --to torchvision
"""

import argparse
from collections.abc import Sequence

from mmunimoco.converters import ENCODERS, FORMATS, export
from mmunimoco.converters.command_line import add_common, normalization, run


def parse_args(
    argv: Sequence[str] | None, prog: str | None
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        *('--format', '--to'),
        type=lambda name: 'huggingface' if name == 'hf' else name,
        choices=FORMATS,
        required=True,
    )
    parser.add_argument(
        '--encoder',
        choices=ENCODERS,
        default='query',
        help='which backbone (default: %(default)s)',
    )
    return add_common(parser).parse_args(argv)


def convert(args: argparse.Namespace) -> dict:
    return export(
        *(args.src, args.dst, args.format, args.encoder),
        normalization=normalization(args),
        force=args.force,
    )


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Export a backbone; see the top of this file.

    Args:
        argv (Sequence[str], optional): Arguments. Defaults to those of the
            process.
        prog (str, optional): Name of the command.

    Returns:
        int: Exit status.
    """
    return run(convert, parse_args(argv, prog), prog)
