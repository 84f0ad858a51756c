"""Copy an image folder into one LMDB file, for disks slow at small files.

Needs the package lmdb (pip install lmdb). OUT.txt, written beside it, lists
the images and their classes; with them a data set reads

  dict(type='CustomDataset', data_prefix='', ann_file='OUT.txt', ...)

and its pipeline starts with LoadTwoCrops or LoadImageFromFile and

  backend_args=dict(backend='lmdb', db_path='OUT', subdir=False)

Example:
  python tools/dataset_converters/make_lmdb.py \
      --folder data/imagenet/train --out data/imagenet/train.lmdb
"""

import argparse
import os
import sys

from rich.progress import track

from mmunimoco.datasets.label_list_source import dataset_from_folder
from mmunimoco.datasets.lmdb_file import write_lmdb


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--folder', required=True, help='images in class sub-folders'
    )
    parser.add_argument('--out', required=True, help='file to write')
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse_args(argv)
    root = os.path.expanduser(args.folder)
    try:
        dataset = dataset_from_folder(root)
        infos = (dataset.get_data_info(i) for i in range(len(dataset)))
        samples = (
            (os.path.relpath(info['img_path'], root), info['gt_label'])
            for info in infos
        )
        samples = track(samples, 'Copying', total=len(dataset))
        count, listed = write_lmdb(args.out, root, samples)
    except (ImportError, OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(f'{args.out}: {count} images, listed in {listed}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
