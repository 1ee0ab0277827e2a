"""How many messages may wait in a socket."""

from __future__ import annotations

_SPARE_MESSAGES = 1000


def queue_length(max_batches: int, messages: int) -> int:
    """How many messages may wait: more than one sender can have under way, which is `messages` of each batch.

    Twice that many, as those of an earlier opening may still come.
    """
    return _SPARE_MESSAGES + 2 * max_batches * messages
