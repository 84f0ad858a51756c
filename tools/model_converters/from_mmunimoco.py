"""Export the backbone of a checkpoint for other projects.

backbone     for mmpretrain, mmdet and mmseg, keys under "backbone."; any
             backbone
torchvision  state dict of a ResNet, without fc
timm         state dict of a ResNet or ViT, for num_classes=0
safetensors  the same, as a safetensors file
detectron2   .pkl of a ResNet
huggingface  folder with config.json, model.safetensors and README.md, which
             timm loads from the Hugging Face Hub

  python tools/model_converters/from_mmunimoco.py epoch_200.pth r50.pth \
      --format torchvision
"""

import argparse
import sys

from mmunimoco.converters import ENCODERS, FORMATS, export
from mmunimoco.converters.command_line import add_common, normalization, run


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--format', choices=FORMATS, required=True)
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


def main(argv=None) -> int:
    return run(convert, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
