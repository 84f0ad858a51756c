"""Style of the plots, and how they become files."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

# Light and plain: for matplotlib.rc_context.
STYLE = {
    'font.size': 10.5,
    'axes.titlesize': 11.5,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.color': '#E5E5E5',
    'axes.axisbelow': True,
    'legend.frameon': False,
}


def figure_png(figure: Figure) -> bytes:
    """Draw a figure as a small PNG."""
    # No pyplot: nothing global, and no display is looked for.
    FigureCanvasAgg(figure)
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format='png', dpi=110)
    # 256 colours are plenty here, and a third of the bytes.
    image = Image.open(drawn).convert('RGB')
    image.quantize(dither=Image.Dither.NONE).save(
        small, format='png', optimize=True
    )
    return small.getvalue()
