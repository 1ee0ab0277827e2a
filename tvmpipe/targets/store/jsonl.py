"""Append-only files of JSON lines that several processes may write to and a crash cannot spoil.

Lines are appended under a lock; one that a crash tore is skipped when reading and closed before the
next is written, so that it costs nothing but itself. Files may be copied, concatenated and shared.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tvmpipe.errors import InputError

logger = logging.getLogger(__name__)

Row = TypeVar("Row")


def append(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Append rows, all of them or, after a crash, the first ones; they are on disk when this returns.

    Raises InputError where that is not possible.
    """
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            _append(descriptor, text)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"profile {path} cannot be written: {error.strerror}") from None


def _append(descriptor: int, text: bytes) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        text = b"\n" + text  # a torn line must not swallow this one
    while text:  # a disk that is nearly full takes a part
        text = text[os.write(descriptor, text) :]
    os.fsync(descriptor)


def read(path: Path, parse: Callable[[dict[str, Any]], Row | None]) -> Iterator[Row]:
    """What `parse` makes of each line of a file, as `parsed` gives it. Raises InputError when it cannot be read."""
    return parsed(load(path), parse, path)


def load(path: Path) -> bytes:
    """A file's lines, none where there is no file. Raises InputError when it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise InputError(f"profile {path} cannot be read: {error.strerror}") from None


def parsed(text: bytes, parse: Callable[[dict[str, Any]], Row | None], path: Path) -> Iterator[Row]:
    """What `parse` makes of each line, oldest first.

    Lines for which it gives None are passed over, those for which it raises ValueError, TypeError or KeyError as well,
    with a warning that names `path`.
    """
    damaged = 0
    for line in text.split(b"\n"):
        if not line.strip():
            continue
        try:
            row = parse(json.loads(line))
        except (ValueError, TypeError, KeyError):
            damaged += 1
            continue
        if row is not None:
            yield row
    if damaged:
        logger.warning("%s: %d damaged lines skipped", path, damaged)
