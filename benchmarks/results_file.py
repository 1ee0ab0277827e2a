"""Files in `benchmarks/results/`: what a benchmark of the planner printed, for the documentation to include."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


def text_of(*parts: Table | str, width: int = 170) -> str:
    """Tables and lines of text as plain text."""
    text = StringIO()
    console = Console(file=text, width=width)
    for part in parts:
        console.print(part, highlight=False, markup=False)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def save(name: str, text: str) -> None:
    """Write a file of the folder, in place of what it held."""
    (RESULTS / name).write_text(text)
