"""Tables and lines for a terminal or a page in which text is shown as it is: never as markup, a link or an emoji."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from tvmpipe.text import clean, clean_lines


def plain(text: object, style: str = "") -> Text:
    """Text in one line for rich."""
    return Text(clean(text), style=style)


class PlainTable(Table):
    """A table whose title, columns and cells are text and no markup, unless they are given as a rich renderable."""

    def __init__(self, *columns: str, title: str | None = None, **options: Any) -> None:
        super().__init__(title=None if title is None else plain(title, "table.title"), **options)
        for name in columns:
            self.add_column(name)

    def add_column(self, header: RenderableType = "", *arguments: Any, **options: Any) -> None:
        """As rich's."""
        super().add_column(plain(header) if isinstance(header, str) else header, *arguments, **options)

    def add_names(self, header: str) -> None:
        """A column of names that people copy: on several lines where there is no room for them, and never cut."""
        self.add_column(header, overflow="fold")

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """As rich's."""
        super().add_row(*(plain(cell) if isinstance(cell, str) else cell for cell in cells), **options)


class PlainConsole(Console):
    """A console that takes no markup, emoji codes or highlights from text, and prints no control character from it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich's; whatever anything is made of ends up here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(clean_lines(segment.text), segment.style)
