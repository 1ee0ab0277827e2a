"""Text of tokens as they come."""

from __future__ import annotations

from collections.abc import Sequence

from tvmpipe.generation.tokenizer import Tokenizer

_REPLACEMENT = "\ufffd"  # what a decoder makes of bytes that are no UTF-8, or not yet
_CONTEXT = 8  # tokens of the prompt that the first ones are decoded behind


class Detokenizer:
    """Turns tokens into pieces of text, each of which is final.

    The pieces together are what the tokenizer's decoder makes of prompt and answer, without the prompt: so a space that
    belongs to the first token stays. A character whose bytes come in several tokens is held back until it is whole.
    Only the last tokens are decoded each time: those of the last piece, in front of which nothing changes any more, and
    those behind.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        begin = max(len(prompt) - _CONTEXT, 0)
        while begin and tokenizer.is_byte(prompt[begin]):
            begin -= 1  # a run of bytes is decoded as a whole
        self._window = list(prompt[begin:])
        # Of the window's text, how much has been given away; the end of a cut prompt may be half a character.
        self._given = tokenizer.decode(self._window).rstrip(_REPLACEMENT)
        self._fresh = len(self._window)  # where in the window the tokens begin that have not given any text yet

    def push(self, token: int) -> str:
        """The text that this token completes; empty where it completes none."""
        self._window.append(token)
        if self._tokenizer.is_hidden(token) or self._tokenizer.is_byte(token):
            return ""  # what a run of bytes means shows when it has ended
        text = self._tokenizer.decode(self._window)
        if text.endswith(_REPLACEMENT) or len(text) <= len(self._given):
            return ""
        piece = text[len(self._given) :]
        self._window = self._window[self._fresh :]
        self._given = self._tokenizer.decode(self._window)
        self._fresh = len(self._window)
        return piece

    def finish(self) -> str:
        """What is left at the end of the text: bytes that no token completed are U+FFFD."""
        text = self._tokenizer.decode(self._window)
        piece = text[len(self._given) :]
        self._given = text
        return piece
