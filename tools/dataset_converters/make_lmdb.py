"""Copy an image folder into one LMDB file, for disks slow at small files.

Needs the package lmdb (pip install lmdb). OUT.txt, written beside it, lists
the images and their classes. Use both in a dataset

  dict(type='CustomDataset', data_prefix='', ann_file='OUT.txt', ...)

whose pipeline starts with LoadTwoCrops or CheckedLoadImageFromFile and

  backend_args=dict(backend='lmdb', db_path='OUT', subdir=False)

Example:
  python tools/dataset_converters/make_lmdb.py \
      --folder data/imagenet/train --out data/imagenet/train.lmdb
"""

import argparse
import io
import os
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path

from rich.progress import track

# Packages print what they lack when they are imported.
with redirect_stdout(io.StringIO()):
    from mmunimoco.datasets.label_lists import (
        check_name,
        dataset_from_folder,
    )
    from mmunimoco.utils.atomic import write_atomic

# Larger than any disk: LMDB reserves addresses, not space.
MAP_SIZE = 2**43
BATCH = 1000  # files per transaction


def write_lmdb(
    out: str, root: str, samples: Iterable[tuple[str, int]]
) -> tuple[int, str]:
    """Copy files unchanged into an LMDB file, and list them beside it.

    A key is the path of a file relative to ``root``; the list, ``out`` with
    ``.txt`` appended, has a line ``path class`` for each, for ``ann_file`` of
    mmpretrain's ``CustomDataset`` and ``ImageNet``. The list is written last:
    if it exists, the LMDB file is complete.

    Args:
        out: The file to write; its folder is created if needed.
        root: Folder of the images.
        samples: Path relative to ``root`` and class of each image.

    Returns:
        The number of images and the path of the list.

    Raises:
        FileExistsError: If ``out`` exists.
        OSError: If it cannot be written.
        ImportError: If ``lmdb`` is not installed.
        ValueError: If a path is not ASCII, which mmengine's backend cannot
            look up, longer than a key of LMDB may be, or cannot stand in a
            list.
    """
    import lmdb

    if os.path.exists(out):
        raise FileExistsError(f'{out} exists; remove it first')
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    try:
        lines = _copy(out, root, samples)
    except lmdb.Error as error:  # a full disk, among others
        raise OSError(
            f'{out} cannot be written: {error}; remove it, and see that there '
            'is space for all images'
        ) from error
    write_atomic(Path(f'{out}.txt'), ''.join(lines))
    return len(lines), f'{out}.txt'


def _copy(
    out: str, root: str, samples: Iterable[tuple[str, int]]
) -> list[str]:
    """Write the LMDB file, and return the lines of the list."""
    import lmdb

    lines = []
    environment = lmdb.open(
        out, subdir=False, map_size=MAP_SIZE, lock=False, readahead=False
    )
    with environment:
        max_length = environment.max_key_size()
        transaction = environment.begin(write=True)
        for path, label in samples:
            if not path.isascii() or len(path) > max_length:
                raise ValueError(
                    f'{path!r} cannot be a key of LMDB: rename the file to at '
                    f'most {max_length} ASCII characters'
                )
            check_name(path, root)
            content = Path(root, path).read_bytes()
            transaction.put(path.encode('ascii'), content)
            lines.append(f'{path} {label}\n')
            if len(lines) % BATCH == 0:
                transaction.commit()
                transaction = environment.begin(write=True)
        transaction.commit()
        environment.sync(True)
    return lines


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--folder', required=True, help='folder with one sub-folder per class'
    )
    parser.add_argument('--out', required=True, help='LMDB file to write')
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
