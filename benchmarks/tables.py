"""Tables on the terminal."""

from rich.console import Console
from rich.table import Table


def print_table(
    console: Console,
    title: str,
    columns: tuple[str, ...],
    rows: list[tuple[str, ...]],
) -> None:
    """Print a table with the first column left-aligned, the others right.

    Args:
        console (Console): The console of rich.
        title (str): Printed above the table.
        columns (tuple[str, ...]): Names of the columns.
        rows (list[tuple[str, ...]]): One text per column.
    """
    table = Table(title=title)
    for index, name in enumerate(columns):
        table.add_column(name, justify='right' if index else 'left')
    for row in rows:
        table.add_row(*row)
    console.print(table)
