"""Convert a checkpoint of MoCo, UniMoCo or a ResNet for this project.

Reads MoCo v1 and v2 and UniMoCo as published (.pth.tar), MoCo of mmselfsup
and mmpretrain, and ResNets of torchvision and timm.

  python tools/model_converters/to_mmunimoco.py moco_v2_800ep.pth.tar moco.pth
"""

import argparse
import io
import sys
from contextlib import redirect_stdout
from pathlib import Path

# Packages print what they lack when they are imported.
with redirect_stdout(io.StringIO()):
    from mmunimoco.converters import SOURCES, to_mmunimoco
    from mmunimoco.converters.command_line import (
        add_common,
        normalization,
        run,
    )
    from mmunimoco.converters.files import (
        check_free,
        read_weights,
        write_checkpoint,
    )


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--source',
        choices=['auto', *SOURCES],
        default='auto',
        help='project that wrote it (default: detected from its keys)',
    )
    return add_common(parser).parse_args(argv)


def convert(args: argparse.Namespace) -> dict:
    check_free(Path(args.dst), args.force)
    given = normalization(args)
    checkpoint = to_mmunimoco(read_weights(args.src), args.source)
    if given is not None:
        checkpoint['meta']['normalization'] = given
    write_checkpoint(Path(args.dst), checkpoint)
    print(f'source: {checkpoint["meta"]["converted_from"]["source"]}')
    return checkpoint


def main(argv=None) -> int:
    return run(convert, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
