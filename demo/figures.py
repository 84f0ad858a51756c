"""Style of the pictures that the demo adds to the report."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

# For matplotlib.rc_context.
STYLE = {
    'font.size': 10.5,
    'axes.titlesize': 11.5,
    'axes.grid': False,
    'legend.frameon': False,
}
# Ten colours of Tol's "muted" scheme and black. Ten are too many to
# distinguish for everybody, so the classes are also named in the picture.
CLASS_COLORS = (
    *('#CC6677', '#332288', '#DDCC77', '#117733', '#88CCEE'),
    *('#882255', '#44AA99', '#999933', '#AA4499', '#222222'),
)


def figure_png(figure: Figure, caption: str) -> bytes:
    """Render a figure as a small PNG that bears its caption."""
    # Not pyplot, which has global state and looks for a display.
    FigureCanvasAgg(figure)
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format='png', dpi=110)
    info = PngInfo()
    info.add_text('Description', caption)
    # A palette of 256 colours takes a third of the bytes.
    image = Image.open(drawn).convert('RGB')
    image.quantize(dither=Image.Dither.NONE).save(
        small, format='png', optimize=True, pnginfo=info
    )
    return small.getvalue()
