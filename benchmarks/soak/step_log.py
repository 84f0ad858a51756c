"""Follow what a training process says of its steps."""

from pathlib import Path


class StepLog:
    """The file of a ``StepLogHook``, read while it is written.

    Args:
        path (Path): The file; there may be none yet.

    Attributes:
        first (int | None): Steps that were done before; None until the
            training begins.
        total (int | None): Steps of the whole run.
        losses (list[str]): Of the steps after the first ones, as
            ``float.hex`` writes them.
        faults (list[str]): Lines that are not of the step after the last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first: int | None = None
        self.total: int | None = None
        self.losses: list[str] = []
        self.faults: list[str] = []
        self._read = 0
        self._rest = b''

    @property
    def step(self) -> int:
        """Steps done in all, as far as is known."""
        return (self.first or 0) + len(self.losses)

    def update(self) -> bool:
        """Read what is new; whether there was anything."""
        try:
            with open(self.path, 'rb') as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return False
        self._read += len(data)
        *lines, self._rest = (self._rest + data).split(b'\n')
        for line in lines:
            self._add(line.decode())
        return bool(lines)

    def _add(self, line: str) -> None:
        number, value = line.split()
        if self.first is None:
            self.first, self.total = int(number), int(value)
        elif int(number) == self.step + 1:
            self.losses.append(value)
        else:
            self.faults.append(line)
