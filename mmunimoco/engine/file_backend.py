"""mmengine's way to the disk, by files that are whole or absent."""

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from mmunimoco.utils.atomic import write_atomic

ATOMIC = 'mmunimoco_atomic'


class AtomicBackend(LocalBackend):
    """mmengine's ``LocalBackend``, which replaces files as a whole.

    A checkpoint is written beside its place, flushed to the disk and
    renamed: killed in between, the disk full, the old one stays.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file.

        Args:
            obj (bytes): The content.
            filepath (str | Path): The file; its folder is made.
        """
        write_atomic(Path(filepath), obj)


class DeferredRemovals:
    """A backend that removes files only when it is told to.

    Args:
        backend (BaseStorageBackend): The backend, of which all else is
            asked.
    """

    def __init__(self, backend: LocalBackend) -> None:
        self.backend = backend
        self._removals = []

    def __getattr__(self, name: str):
        return getattr(self.backend, name)

    def remove(self, filepath: str | Path) -> None:
        """Remember a file that has become superfluous."""
        self._removals.append(filepath)

    def forget(self) -> None:
        """Keep what was to be removed."""
        self._removals = []

    def flush(self) -> None:
        """Remove what is superfluous and still there."""
        for filepath in self._removals:
            if self.backend.isfile(filepath):
                self.backend.remove(filepath)
        self.forget()


register_backend(ATOMIC, AtomicBackend, force=True)
