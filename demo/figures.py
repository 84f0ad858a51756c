"""Style of the figures, and their conversion to PNG."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

# For matplotlib.rc_context.
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
    """Render a figure as a small PNG."""
    # Not pyplot, which has global state and looks for a display.
    FigureCanvasAgg(figure)
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format='png', dpi=110)
    # A palette of 256 colours takes a third of the bytes.
    image = Image.open(drawn).convert('RGB')
    image.quantize(dither=Image.Dither.NONE).save(
        small, format='png', optimize=True
    )
    return small.getvalue()
