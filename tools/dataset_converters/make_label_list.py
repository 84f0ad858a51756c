"""Write a list of the images that keep their label at a given ratio.

The selection is that of PartialLabels(label_ratio=RATIO, seed=SEED) on the
same images. Use the list in PartialLabels(label_list=...), in other programs,
or keep it with a result.

Example:
  python tools/dataset_converters/make_label_list.py \
      --folder data/imagenet/train --ratio 0.1 --out 10pct.txt
"""

import argparse
import io
import sys
from contextlib import redirect_stdout
from pathlib import Path

# Packages print what they lack when they are imported.
with redirect_stdout(io.StringIO()):
    from mmengine.config import DictAction

    from mmunimoco.converters.files import check_free
    from mmunimoco.datasets.label_lists import (
        dataset_from_config,
        dataset_from_folder,
        make_label_list,
        write_label_list,
    )
    from mmunimoco.datasets.partial_labels import check_ratio


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--folder', help='one sub-folder per class')
    source.add_argument('--config', help='config with the dataset')
    parser.add_argument(
        '--dataset',
        default='train_dataloader.dataset',
        metavar='KEY',
        help='field of the dataset in the config (default: %(default)s)',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE'
    )
    parser.add_argument(
        '--ratio',
        type=float,
        required=True,
        help='share of the labels, above 0 up to 1',
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', required=True, help='list to write')
    parser.add_argument('--force', action='store_true', help='overwrite')
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse_args(argv)
    try:
        ratio = check_ratio(args.ratio)
        check_free(Path(args.out), args.force)
        dataset = (
            dataset_from_folder(args.folder)
            if args.folder is not None
            else dataset_from_config(
                args.config, args.dataset, args.cfg_options
            )
        )
        names = make_label_list(dataset, ratio, args.seed)
        write_label_list(args.out, names, args.force)
    except (OSError, ValueError, TypeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(
        f'{args.out}: {len(names)} of {len(dataset)} images '
        f'(ratio {ratio}, seed {args.seed})'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
