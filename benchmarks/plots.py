"""One picture of all cases."""

import matplotlib as mpl
from matplotlib.figure import Figure

from mmunimoco.utils.figures import STYLE, figure_png

from .case import Case

COLUMNS = 2


def plot_cases(cases: list[Case], results: dict[str, dict]) -> bytes:
    """Draw each case into a panel of its own.

    Args:
        cases (list[Case]): What was run.
        results (dict): Result by name of the case.

    Returns:
        bytes: A PNG.
    """
    columns = min(COLUMNS, len(cases))
    lines = -(-len(cases) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(5.6 * columns, 3.4 * lines), layout='constrained'
        )
        panels = figure.subplots(lines, columns, squeeze=False).flatten()
        for case, axes in zip(cases, panels, strict=False):
            case.draw(axes, results[case.name])
        for axes in panels[len(cases) :]:
            axes.set_visible(False)
        return figure_png(figure)
