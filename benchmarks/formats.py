"""Numbers for people, and the style of the plots."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from .case import FAST, MOCO, MOCO_AMP, OURS, PUBLISHED

# Okabe and Ito's palette: told apart by colour-blind readers too.
STYLES = {
    OURS: dict(color='#0072B2', marker='o'),
    FAST: dict(color='#009E73', marker='^'),
    PUBLISHED: dict(color='#D55E00', marker='s'),
    MOCO: dict(color='#CC79A7', marker='D'),
    MOCO_AMP: dict(color='#E69F00', marker='v'),
}
OTHER = dict(color='#555555', marker='x')
OTHER_MARKERS = ('x', 'o', 's')  # of several lines in one plot


def in_time(seconds: dict) -> str:
    """Median: '0.98 ms', '123 ms' or '1.2 s'."""
    median = seconds['median']
    if median >= 1:
        return f'{median:.3g} s'
    return f'{1000 * median:.3g} ms'


def in_rate(rate: dict) -> str:
    """Median: '456 img/s'."""
    return f'{rate["median"]:.3g} img/s'


def in_ratio(ratio: dict) -> str:
    """Median and quartiles: '0.21 (0.20 ... 0.22)'."""
    median, q1, q3 = (f'{ratio[key]:.3g}' for key in ('median', 'q1', 'q3'))
    return f'{median} ({q1} ... {q3})'


def in_bytes(count: float) -> str:
    """'12 B', '3.4 kB', '5.6 MB' or '7.8 GB', in powers of ten."""
    for unit in ('B', 'kB', 'MB', 'GB'):
        if count < 1000 or unit == 'GB':
            break
        count /= 1000
    return f'{count:.3g} {unit}'


def draw_lines(
    axes: Axes, lines: Mapping[str, Sequence[tuple[float, float]]]
) -> None:
    """Draw one line for each contestant.

    Args:
        axes (Axes): Where.
        lines (Mapping): Points (x, y) by name of the contestant.
    """
    for name, points in lines.items():
        style = STYLES.get(name) or dict(
            OTHER, marker=OTHER_MARKERS[len(axes.lines) % len(OTHER_MARKERS)]
        )
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, label=name, linewidth=1.8, markersize=4, **style)
    axes.legend(fontsize=8.5)


def draw_rates(axes: Axes, rates: Mapping[str, dict], title: str) -> None:
    """Draw images a second, one horizontal bar for each contestant.

    Args:
        axes (Axes): Where.
        rates (Mapping): Median and quartiles by name of the contestant.
        title (str): Stands above.
    """
    names = list(rates)[::-1]
    colors = [STYLES.get(name, OTHER)['color'] for name in names]
    medians = [rates[name]['median'] for name in names]
    bars = axes.barh(names, medians, color=colors)
    axes.bar_label(bars, fmt='%.3g', padding=3, fontsize=8.5)
    axes.margins(x=0.15)
    axes.grid(axis='y', visible=False)
    axes.set(title=title, xlabel='images per second')
