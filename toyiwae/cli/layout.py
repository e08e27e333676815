"""Tables of numbers for people, and whole numbers in them."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table


def whole(number: int) -> str:
    """A whole number, round ones from a million on as 1e6."""
    short = f"{number:g}".replace("e+0", "e").replace("e+", "e")
    return short if number >= 10**6 and int(float(short)) == number else str(number)


def table_of(*columns: str, title: str | None = None) -> Table:
    """An empty table of numbers."""
    look: dict[str, Any] = {"box": box.SIMPLE_HEAD, "pad_edge": False, "show_edge": False}
    table = Table(title=title, title_justify="left", title_style="", **look)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def print_table(console: Console, table: Table) -> None:
    """Prints a table and an empty line."""
    console.print(Padding(table, (0, 0, 1, 0), expand=False))
