"""Files of a slow disk or network, kept in memory or on a fast disk."""

import hashlib
import shutil
from pathlib import Path

from mmengine import fileio
from mmengine.fileio import BaseStorageBackend, register_backend
from mmengine.logging import print_log

from mmunimoco.utils.atomic import write_atomic


class CachedBackend(BaseStorageBackend):
    """Keep each file that is read, as it is, in a folder.

    In memory if the folder is in ``/dev/shm``; else on a local disk, which
    outlasts the run. All workers and processes of a machine share it, so
    that a file comes from its source once. Any transform that has
    ``backend_args`` can use it::

        backend_args=dict(backend='cached', cache_dir='/dev/shm/images')

    A file that changes at its source later on is not noticed.

    Args:
        cache_dir (str): The folder; made if it does not exist.
        keep_free (int): Bytes to leave free there, workers' own shared
            memory included; what does not fit is read from its source every
            time. Defaults to 2 ** 30.
        source (dict, optional): ``backend_args`` of the source.
            Defaults to None, by the prefix of the path.
    """

    def __init__(
        self,
        cache_dir: str,
        keep_free: int = 2**30,
        source: dict | None = None,
    ) -> None:
        self.cache_dir = Path(cache_dir).expanduser()
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        self.keep_free = keep_free
        self.source = source and dict(source)
        self._full = False

    def get(self, filepath: str | Path) -> bytes:
        """The content of a file.

        Args:
            filepath (str | Path): As its source calls it.

        Returns:
            bytes: What is or was there; None if the source says so.
        """
        path = self._place(filepath)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            content = fileio.get(filepath, backend_args=self.source)
        if content is not None and self._fits(len(content)):
            write_atomic(path, content)
        return content

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """The same as text."""
        return self.get(filepath).decode(encoding)

    def _place(self, filepath: str | Path) -> Path:
        """A name that is the path's own; 256 folders keep each small."""
        name = str(filepath)
        if self.source is None and '://' not in name:
            name = str(Path(name).absolute())
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self.cache_dir / digest[:2] / digest[2:]

    def _fits(self, size: int) -> bool:
        if self._full:
            return False
        free = shutil.disk_usage(self.cache_dir).free
        self._full = free < self.keep_free + size
        if self._full:
            print_log(
                f'CachedBackend: {self.cache_dir} has {free / 2**20:.0f} MB '
                'left and keeps no more files; the others are read from '
                'their source each time.',
                logger='current',
            )
        return not self._full


register_backend('cached', CachedBackend, force=True)
