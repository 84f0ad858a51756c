"""What every case of the benchmark is given, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

# Contestants, as tables, plots and the JSON name them.
OURS, FAST = 'ours', 'ours, fast'
PUBLISHED = 'published'
MOCO, MOCO_AMP = 'mmpretrain MoCo v2', 'mmpretrain MoCo v2, amp'


@dataclass(frozen=True)
class Settings:
    """What the user chose.

    Attributes:
        device (str): 'cpu' or 'cuda'.
        images (Path): Folder of photographs.
        folder (Path): Where logs and temporary files go.
        workers (int): Processes that load data in the case ``end2end``.
        quick (bool): Everything much reduced, for tests; the numbers mean
            nothing.
    """

    device: str
    images: Path
    folder: Path
    workers: int = 1
    quick: bool = False

    def repeats(self, count: int) -> int:
        """Rounds to measure, of which a quick run takes two."""
        return min(count, 2) if self.quick else count


@dataclass(frozen=True)
class Case:
    """One case of the benchmark.

    Attributes:
        name (str): As ``--cases`` takes it.
        title (str): What is measured, for people.
        seconds (dict[str, float]): About how long it takes, by device.
        run (Callable): Takes the settings and a function
            ``tell(fraction, text)``; returns what goes into the JSON.
        rows (Callable): Takes that result; returns the rows of the table:
            what, ours, the other, their ratio.
        draw (Callable): Takes axes and the result.
        headlines (tuple[str]): Keys of the result that stand on top of the
            JSON too.
    """

    name: str
    title: str
    seconds: dict[str, float]
    run: Callable[[Settings, Callable[[float, str], None]], dict[str, Any]]
    rows: Callable[[dict], list[tuple[str, str, str, str]]]
    draw: Callable[[Axes, dict], None]
    headlines: tuple[str, ...] = ()


class Ticker:
    """Turn rounds done into a fraction.

    Args:
        tell (Callable): Takes a fraction and a text.
        total (int): Rounds of all that is measured.
    """

    def __init__(self, tell: Callable[[float, str], None], total: int) -> None:
        self._tell, self._total = tell, max(total, 1)
        self._done, self.text = 0, ''

    def __call__(self, count: int = 1) -> None:
        self._done += count
        self._tell(min(self._done / self._total, 1.0), self.text)
