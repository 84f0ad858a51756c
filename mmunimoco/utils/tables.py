"""Tables on the terminal."""

from rich.console import Console
from rich.table import Table


def print_table(
    console: Console,
    title: str,
    columns: tuple[str, ...],
    rows: list[tuple[str, ...]],
) -> None:
    """Print a table, its first column to the left, the others to the right.

    Args:
        console (Console): Where to.
        title (str): Stands above it.
        columns (tuple[str, ...]): Names.
        rows (list[tuple[str, ...]]): One text for each column.
    """
    table = Table(title=title)
    for index, name in enumerate(columns):
        table.add_column(name, justify='right' if index else 'left')
    for row in rows:
        table.add_row(*row)
    console.print(table)
