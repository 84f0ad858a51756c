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

from argparse import ArgumentParser, Namespace

from mmunimoco.converters import ENCODERS, FORMATS, export
from mmunimoco.converters.command_line import add_common, normalization, run


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
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
    add_common(parser)


def convert(args: Namespace) -> dict:
    return export(
        *(args.src, args.dst, args.format, args.encoder),
        normalization=normalization(args),
        force=args.force,
    )


def main(args: Namespace) -> int:
    """Run the command, and return its exit status."""
    return run(convert, args, 'mmunimoco export')
