"""Guesses of what comes next, looked up in the text so far."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_NGRAM = 3


def look_up(tokens: Sequence[int], count: int, longest: int = LONGEST_NGRAM) -> tuple[int, ...]:
    """At most `count` tokens that followed the last tokens where they stood before; none where they did not.

    Prompt look-up decoding (A. Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding): the last `longest` tokens
    are looked for, then fewer; of several places the last one that has something after it.
    """
    if count < 1:
        return ()
    for size in range(min(longest, len(tokens) - 1), 0, -1):
        pattern = tuple(tokens[-size:])
        for place in range(len(tokens) - size - 1, -1, -1):
            if tokens[place + size - 1] == pattern[-1] and tuple(tokens[place : place + size]) == pattern:
                return tuple(tokens[place + size : place + size + count])
    return ()
