"""Printing for people."""

from typing import Any

from rich.console import Console


def show(*parts: Any) -> None:
    """Print tables and lines; wide enough for the tables where the output is no terminal."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 140
    for part in parts:
        console.print(part, markup=False)
