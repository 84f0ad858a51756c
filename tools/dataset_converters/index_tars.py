"""Index the images in tar files, for disks slow at small files.

The tar files stay as they are: of an image folder (class/name.jpg), or shards
of WebDataset (key.jpg, key.cls). OUT.txt, written beside OUT, lists the images
and their classes; with them a data set reads

  dict(type='CustomDataset', data_prefix='', ann_file='OUT.txt', ...)

and its pipeline starts with LoadTwoCrops or LoadImageFromFile and

  backend_args=dict(backend='tar', index='OUT')

A folder becomes tar files by tar alone, for example one a class:
  cd data/imagenet/train && for c in *; do tar -cf ../tars/$c.tar $c; done

Example:
  python tools/dataset_converters/index_tars.py data/imagenet/tars/*.tar \
      --out data/imagenet/train.idx
"""

import argparse
import sys

from rich.progress import track

from mmunimoco.datasets.tar_files import index_tars


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('tars', nargs='+', help='tar files, not compressed')
    parser.add_argument('--out', required=True, help='index to write')
    parser.add_argument(
        '--shard-names',
        action='store_true',
        help='names of images begin with the name of their tar file',
    )
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse_args(argv)
    try:
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
