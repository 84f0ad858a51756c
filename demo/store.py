"""Records of what is done."""

import hashlib
import json
import shutil
from pathlib import Path

from mmunimoco.utils.atomic import write_json

# Raise it when results of an older version cannot be used any more.
RECORD_VERSION = 1
_NAME = 'stage.json'


def fingerprint(*parts: object) -> str:
    """Digest of everything that a result depends on.

    Args:
        *parts: What JSON can hold; other things count by their ``str``.

    Returns:
        str: 16 hexadecimal digits.
    """
    text = json.dumps([RECORD_VERSION, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class StageStore:
    """Folder of one stage, with a record of whether it is finished.

    Args:
        folder (Path): The folder. It belongs to the stage alone and is
            removed when the stage starts over.
        fingerprint (str): Of what the stage's result depends on. Records with
            another one do not count.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint

    @property
    def state(self) -> str:
        """How far the stage is.

        Returns:
            str: 'absent', 'changed' (a record of other settings), 'started'
            or 'finished'.
        """
        record = self._read()
        if record is None:
            return 'absent'
        if record.get('fingerprint') != self.fingerprint:
            return 'changed'
        return 'finished' if record.get('finished') else 'started'

    @property
    def result(self) -> dict:
        """Result of the finished stage."""
        if self.state != 'finished':
            raise ValueError(f'{self.folder}: the stage is not finished')
        return self._read()['result']

    def begin(self) -> None:
        """Prepare the folder: kept if the stage was started, else emptied."""
        if self.state == 'started':
            return
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self._write(finished=False)

    def finish(self, result: dict) -> None:
        """Record the result; from now on the stage is finished."""
        self._write(finished=True, result=result)

    def _write(self, **record: object) -> None:
        record = dict(fingerprint=self.fingerprint, **record)
        write_json(self.folder / _NAME, record)

    def _read(self) -> dict | None:
        path = self.folder / _NAME
        if not path.is_file():
            return None
        try:
            record = json.loads(path.read_text())
        except ValueError:
            return None
        # Anything but a record was not written here: nothing is known.
        return record if isinstance(record, dict) else None
