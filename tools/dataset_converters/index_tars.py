"""Index the images in tar files, for disks slow at small files.

The tar files are not changed. They may hold an image folder (class/name.jpg)
or be shards of WebDataset (key.jpg, key.cls). OUT.txt, written beside OUT,
lists the images and their classes. Use both in a dataset

  dict(type='CustomDataset', data_prefix='', ann_file='OUT.txt', ...)

whose pipeline starts with LoadTwoCrops or CheckedLoadImageFromFile and

  backend_args=dict(backend='tar', index='OUT')

To make tar files of a folder, for example one per class:
  cd data/imagenet/train && for c in *; do tar -cf ../tars/$c.tar $c; done

Example:
  python tools/dataset_converters/index_tars.py data/imagenet/tars/*.tar \
      --out data/imagenet/train.idx
"""

import argparse
import io
import sys
from contextlib import redirect_stdout
from pathlib import Path

from rich.progress import track

# Packages print what they lack when they are imported.
with redirect_stdout(io.StringIO()):
    from mmunimoco.converters.files import check_free
    from mmunimoco.datasets.storage import index_tars


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('tars', nargs='+', help='uncompressed tar files')
    parser.add_argument('--out', required=True, help='index to write')
    parser.add_argument(
        '--shard-names',
        action='store_true',
        help='prefix the names of images with that of their tar file',
    )
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse_args(argv)
    try:
        check_free(Path(args.out), force=True)
        count, labeled, listed = index_tars(
            args.out,
            args.tars,
            args.shard_names,
            lambda shards: track(shards, 'Indexing'),
        )
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(f'{args.out}: {count} images, {labeled} with a class, see {listed}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
