"""Relax block builders that end quietly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def closed_blocks(builder: Any) -> Iterator[None]:
    """Where the body raises, ends the blocks that `builder` has begun.

    TVM would complain of them on stderr when it destroys the builder, long after the reason.
    """
    try:
        yield
    except Exception:
        with contextlib.suppress(Exception):  # raised where there is none left
            while True:
                builder._end_block()
        raise
