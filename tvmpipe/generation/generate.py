"""The loop: feed a sequence its prompt, then token after token, and make text of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tvmpipe.errors import InputError
from tvmpipe.generation.detokenize import Detokenizer
from tvmpipe.generation.draft import look_up
from tvmpipe.generation.filters import keep_top_k
from tvmpipe.generation.language_model import LanguageModel, Logits, TokenSequence
from tvmpipe.generation.options import GenerationOptions
from tvmpipe.generation.sample import log_probabilities, sample
from tvmpipe.generation.stop_words import StopWords
from tvmpipe.generation.tokenizer import Tokenizer

PROMPT_CHUNK = 256
"""Tokens of a prompt that are fed at once: their logits are all answered, and others wait for no more."""

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class TokenChoice:
    """A token that was chosen, and with `top_logprobs` its log-probability and the most probable (id, log-probability).

    `begin` is where its text begins in the answer, in characters.
    """

    token: int
    begin: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Usage:
    """What a generation took: tokens, seconds from its start to the first token and to the last, guesses and hits."""

    prompt_tokens: int
    generated_tokens: int
    first_token_s: float
    total_s: float
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def prompt_rate(self) -> float:
        """Tokens of the prompt per second until the first token was there."""
        return self.prompt_tokens / self.first_token_s if self.first_token_s > 0 else 0.0

    @property
    def generation_rate(self) -> float:
        """Tokens per second after the first; 0 where there is one at most."""
        seconds = self.total_s - self.first_token_s
        return (self.generated_tokens - 1) / seconds if self.generated_tokens > 1 and seconds > 0 else 0.0


@dataclass(frozen=True)
class Piece:
    """Text that is final, with the tokens whose text is now shown; the last piece says why it is, and what it took."""

    text: str
    tokens: tuple[TokenChoice, ...] = ()
    finish: FinishReason | None = None
    usage: Usage | None = None


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    options: GenerationOptions,
    *,
    cancelled: threading.Event | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Generator[Piece, None, None]:
    """Pieces of text that the model goes on with after the tokens of `prompt`.

    The text ends at a token that ends texts or at a stop string, neither of which is shown ("stop"), after
    `max_tokens` or a full context ("length"), or, within a step, when `cancelled` is set ("cancelled"). The sequence is
    closed when the iterator ends, is closed, or raises.

    Raises InputError for a prompt or a draft that the model cannot take, QueueFullError when no sequence is free,
    StageError for logits that are no numbers, and what feeding the sequence raises.
    """
    check_prompt(prompt, model)
    if options.draft and not model.forgets:
        raise InputError(
            "--draft tries tokens that may be wrong, and this model's states cannot forget any; leave it out"
        )
    run = _Run(tokenizer, tuple(prompt), options, model.context, cancelled or threading.Event(), clock)
    sequence = model.sequence()
    try:
        yield from run.pieces(sequence)
    finally:
        sequence.close()


def check_prompt(prompt: Sequence[int], model: LanguageModel) -> None:
    """Raises InputError for a prompt that is empty, fills the context, or has tokens that the model lacks."""
    if not prompt:
        raise InputError("the prompt has no tokens; at least one is needed")
    if len(prompt) >= model.context:
        raise InputError(
            f"the prompt has {len(prompt)} tokens, and the model's context of {model.context} must hold the answer too"
        )
    wrong = next((token for token in prompt if not 0 <= token < model.vocabulary), None)
    if wrong is not None:
        raise InputError(
            f"the prompt has token {wrong}, and the model's tokens are 0 to {model.vocabulary - 1}; "
            f"is the tokenizer that of the model?"
        )


@dataclass
class _Run:
    """One generation under way."""

    tokenizer: Tokenizer
    prompt: tuple[int, ...]
    options: GenerationOptions
    context: int
    cancelled: threading.Event
    clock: Callable[[], float]
    generated: list[int] = field(default_factory=list)
    drafted: int = 0
    accepted: int = 0

    def __post_init__(self) -> None:
        self._started_s = self.clock()
        self._first_s = 0.0
        self._generator = np.random.default_rng(self.options.seed)
        self._eos = frozenset() if self.options.ignore_eos else self.tokenizer.eos_ids
        room = self.context - len(self.prompt)
        self._most = room if self.options.max_tokens is None else min(self.options.max_tokens, room)
        self._text = _ShownText(Detokenizer(self.tokenizer, self.prompt), StopWords(self.options.stop))

    def pieces(self, sequence: TokenSequence) -> Iterator[Piece]:
        logits: Logits | None = None
        for begin in range(0, len(self.prompt), PROMPT_CHUNK):
            if self.cancelled.is_set():
                yield self._last("cancelled")
                return
            logits = sequence.feed(self.prompt[begin : begin + PROMPT_CHUNK]).result()[-1:]
        assert logits is not None
        guess: tuple[int, ...] = ()
        while True:
            finish = None
            for place, row in enumerate(logits):
                token = sample(row, self.prompt, self.generated, self.options.sampling, self._generator)
                finish = self._take(token, row)
                if finish is not None or place == len(guess) or token != guess[place]:
                    break
                self.accepted += 1
            if finish is None and self.cancelled.is_set():
                finish = "cancelled"
            if finish is not None:
                yield self._last(finish)
                return
            piece = self._text.take()
            if piece.text or piece.tokens:
                yield piece
            # All but the newest token have been fed, and of the guess perhaps more.
            known = len(self.prompt) + len(self.generated) - 1
            if sequence.length > known:
                sequence.truncate(known)
            guess = self._guess()
            self.drafted += len(guess)
            logits = sequence.feed([self.generated[-1], *guess]).result()

    def _take(self, token: int, row: Logits) -> FinishReason | None:
        """A token that was chosen; why it is the last, if so."""
        if token in self._eos:
            self._note_first()
            return "stop"
        self.generated.append(token)
        self._note_first()
        logprob, top = self._probabilities(token, row)
        self._text.push(token, logprob, top)
        if self._text.stopped:
            return "stop"
        return "length" if len(self.generated) == self._most else None

    def _note_first(self) -> None:
        if not self._first_s:
            self._first_s = self.clock() - self._started_s

    def _probabilities(self, token: int, row: Logits) -> tuple[float | None, tuple[tuple[int, float], ...]]:
        count = self.options.top_logprobs
        if count is None:
            return None, ()
        logprobs = log_probabilities(row)
        top = keep_top_k(logprobs, count)
        top = top[np.argsort(-logprobs[top], kind="stable")]
        return float(logprobs[token]), tuple((int(one), float(logprobs[one])) for one in top)

    def _guess(self) -> tuple[int, ...]:
        """Tokens to try with the next one: as many as may still come behind it, and fit the context."""
        count = min(self.options.draft, self._most - len(self.generated) - 1)
        return look_up([*self.prompt, *self.generated], count) if count > 0 else ()

    def _last(self, finish: FinishReason) -> Piece:
        piece = self._text.finish()
        if self._text.stopped:
            finish = "stop"  # perhaps only now that bytes were shown which waited for others
        usage = Usage(
            prompt_tokens=len(self.prompt),
            generated_tokens=len(self.generated),
            first_token_s=self._first_s,
            total_s=self.clock() - self._started_s,
            drafted_tokens=self.drafted,
            accepted_tokens=self.accepted,
        )
        return Piece(piece.text, piece.tokens, finish, usage)


class _ShownText:
    """Text behind stop strings, and the tokens whose text is shown.

    A token is told when all of its text is; one whose text reaches into a stop string never is. Tokens that make one
    character together are told together.
    """

    def __init__(self, detokenizer: Detokenizer, stop_words: StopWords) -> None:
        self._detokenizer = detokenizer
        self._stop_words = stop_words
        self._decoded = 0  # characters
        self._shown = 0
        self._unfinished: list[TokenChoice] = []  # tokens whose text is not whole yet
        self._waiting: list[tuple[TokenChoice, int]] = []  # tokens, and where their text ends
        self._new: list[str] = []

    @property
    def stopped(self) -> bool:
        """Whether the text ended with a stop string."""
        return self._stop_words.stopped

    def push(self, token: int, logprob: float | None, top: tuple[tuple[int, float], ...]) -> None:
        """Take a token."""
        self._unfinished.append(TokenChoice(token, self._decoded, logprob, top))
        text = self._detokenizer.push(token)
        if text:
            self._decode(text)

    def take(self) -> Piece:
        """What may be shown since the last time."""
        ready = [choice for choice, end in self._waiting if end <= self._shown]
        del self._waiting[: len(ready)]
        text = "".join(self._new)
        self._new.clear()
        return Piece(text, tuple(ready))

    def finish(self) -> Piece:
        """The last: bytes that make no character are shown as such, and so is what might have become a stop string."""
        if not self.stopped:
            self._decode(self._detokenizer.finish())
            self._show(self._stop_words.finish())
        return self.take()

    def _decode(self, text: str) -> None:
        self._decoded += len(text)
        self._waiting += [(choice, self._decoded) for choice in self._unfinished]
        self._unfinished.clear()
        self._show(self._stop_words.push(text))

    def _show(self, text: str) -> None:
        self._shown += len(text)
        if text:
            self._new.append(text)
