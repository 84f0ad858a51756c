"""The demo's images as files, some of them broken."""

import random
from pathlib import Path

from PIL import Image

from demo import DATA_FILE
from mmunimoco.datasets.npz_images import read_npz_split

# Of each kind.
_BROKEN = 3


def write_images(folder: Path, seed: int) -> list[str]:
    """Write the training images, as CLASS/NUMBER.png, and break some.

    Empty ones, ones cut off in their header, other bytes, and a web page in
    the place of an image.

    Args:
        folder (Path): Where to.
        seed (int): Of the choice.

    Returns:
        list[str]: Names of the broken ones.
    """
    images, labels, indices, _ = read_npz_split(DATA_FILE, 'train')
    paths = []
    for image, label, index in zip(images, labels, indices, strict=True):
        path = folder / str(label) / f'{index:05d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, compress_level=1)
        paths.append(path)
    source = random.Random(seed)
    broken = []
    for kind in range(4):
        for path in source.sample(sorted(set(paths) - set(broken)), _BROKEN):
            header = path.read_bytes()[:20]
            noise = source.randbytes(200)
            page = b'<html>404 Not Found</html>'
            path.write_bytes((b'', header, noise, page)[kind])
            broken.append(path)
    return sorted(str(path.relative_to(folder)) for path in broken)
