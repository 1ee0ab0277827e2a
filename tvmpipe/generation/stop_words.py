"""Strings that end a text, wherever tokens begin and end."""

from __future__ import annotations

from collections.abc import Sequence


class StopWords:
    """Passes text on until the first stop string, holding back what may become the beginning of one.

    The first is the one that is complete first; of those that are complete at the same character, the longest. So
    the answer does not depend on how the text is cut into pieces.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = tuple(words)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """What may be shown after this text came; nothing more once `stopped`."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [(place + len(word), place) for word in self._words if (place := text.find(word)) >= 0]
        if found:
            _, place = min(found)
            self._held = ""
            self.stopped = True
            return text[:place]
        length = max((_overlap(text, word) for word in self._words), default=0)
        self._held = text[len(text) - length :]
        return text[: len(text) - length]

    def finish(self) -> str:
        """What was held back, at the end of the text."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, word: str) -> int:
    """Length of the longest proper beginning of `word` with which `text` ends."""
    return next((n for n in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:n])), 0)
