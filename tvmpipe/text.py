"""Text that is not ours, such as names in a model or what a device says: in one line, nothing to obey in it."""

from __future__ import annotations

import logging
import re

# Control characters (with ESC, which begins what a terminal obeys), marks that turn the direction of text around or end
# a line, and halves of characters, as which Python reads a file name that is not UTF-8.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_OBEYED_IN_LINES = re.compile(_OBEYED.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))


def clean(text: object) -> str:
    """The text in one line, with each character that a terminal would obey spelled out: ESC becomes `\\x1b`."""
    return _OBEYED.sub(_spell, str(text))


def clean_lines(text: object) -> str:
    """The same for text of several lines, which stay lines."""
    return _OBEYED_IN_LINES.sub(_spell, str(text))


def _spell(match: re.Match[str]) -> str:
    return ascii(match.group())[1:-1]


class PlainFormatter(logging.Formatter):
    """Log lines that hold what others said."""

    def format(self, record: logging.LogRecord) -> str:
        """One record; the lines of a traceback stay lines."""
        return clean_lines(super().format(record))
