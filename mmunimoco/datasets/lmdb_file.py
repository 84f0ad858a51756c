"""Image files into one LMDB file, which mmengine's backend reads."""

import os
from collections.abc import Iterable
from pathlib import Path

from mmunimoco.utils.atomic import write_atomic

# More than any disk has: LMDB reserves addresses, not space.
_MAP_SIZE = 2**43
_BATCH = 1000


def write_lmdb(
    out: str, root: str, samples: Iterable[tuple[str, int]]
) -> tuple[int, str]:
    """Copy files, as they are, into an LMDB file with a list beside it.

    A key is a file's path below ``root``; the list, ``out`` with ``.txt``,
    has a line ``path class`` each, as ``ann_file`` of mmpretrain's
    ``CustomDataset`` and ``ImageNet`` has it. It is written last: where it
    is, the LMDB file is complete.

    Args:
        out (str): The file to write.
        root (str): Folder of the images.
        samples (Iterable): (path below root, class) of each.

    Returns:
        tuple[int, str]: How many images, and the path of the list.

    Raises:
        FileExistsError: If ``out`` is there already.
        ImportError: If ``lmdb`` is not installed.
        ValueError: If a path is no ASCII, which mmengine's backend cannot
            look up, or longer than LMDB's keys may be.
    """
    import lmdb

    if os.path.exists(out):
        raise FileExistsError(f'{out} is there already; remove it first')
    lines = []
    environment = lmdb.open(
        out, subdir=False, map_size=_MAP_SIZE, lock=False, readahead=False
    )
    with environment:
        transaction = environment.begin(write=True)
        for path, label in samples:
            content = Path(root, path).read_bytes()
            transaction.put(_key(path, environment), content)
            lines.append(f'{path} {label}\n')
            if len(lines) % _BATCH == 0:
                transaction.commit()
                transaction = environment.begin(write=True)
        transaction.commit()
        environment.sync(True)
    write_atomic(Path(f'{out}.txt'), ''.join(lines))
    return len(lines), f'{out}.txt'


def _key(path: str, environment) -> bytes:
    longest = environment.max_key_size()
    if not path.isascii() or len(path) > longest:
        raise ValueError(
            f'{path!r} cannot be a key: ASCII of at most {longest} characters '
            'is needed; rename the file'
        )
    return path.encode('ascii')
