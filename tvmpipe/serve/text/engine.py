"""Generations of many requests on as many threads as the model has sequences, behind a queue with a bound."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from tvmpipe.errors import TvmpipeError
from tvmpipe.generation.generate import Piece, generate
from tvmpipe.generation.language_model import LanguageModel
from tvmpipe.generation.options import GenerationOptions
from tvmpipe.generation.tokenizer import Tokenizer
from tvmpipe.serve.errors import FaultError, StoppingError, TooBusyError
from tvmpipe.serve.text.metrics import Metrics

logger = logging.getLogger(__name__)

_LONGEST_RETRY_S = 60
_RECENT = 0.2  # share of the newest generation in the mean of what they take

_NOTHING = Piece("")
_CANCELLED = Piece("", finish="cancelled")

Listener = Callable[[int, "Piece | Exception"], None]
"""Takes what a generation of a request makes, by its place in the request: pieces, or what it failed with."""


@dataclass(frozen=True)
class Prompt:
    """Tokens to go on with, and how."""

    tokens: tuple[int, ...]
    options: GenerationOptions


@dataclass
class Ticket:
    """The generations of one request."""

    left: int
    cancelled: threading.Event = field(default_factory=threading.Event)
    futures: list[Future[None]] = field(default_factory=list)

    def cancel(self) -> None:
        """Those that wait never start; those that run end after the step that is under way. Idempotent."""
        self.cancelled.set()
        for future in self.futures:
            future.cancel()


class Engine:
    """Runs generations in the order in which they are submitted. Any thread may use it.

    `queue` generations at most wait while every sequence of the model is taken; `largest` is how many may be there in
    all.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, metrics: Metrics, queue: int) -> None:
        self.model = model
        self.largest = model.sequences + queue
        self._tokenizer = tokenizer
        self._metrics = metrics
        self._executor = ThreadPoolExecutor(model.sequences, thread_name_prefix="tvmpipe-generate")
        self._lock = threading.Lock()
        self._tickets: dict[int, Ticket] = {}  # by their ids, so that closing reaches them
        self._admitted = 0
        self._running = 0
        self._mean_s = 1.0
        self._closed = False
        metrics.watch(lambda: self.running, lambda: self.waiting, model.sequences)

    @property
    def running(self) -> int:
        """Generations that have a sequence."""
        return self._running

    @property
    def waiting(self) -> int:
        """Generations that wait for one."""
        return max(self._admitted - self._running, 0)

    def submit(self, prompts: Sequence[Prompt], listener: Listener) -> Ticket:
        """Generate for every prompt. Other threads call `listener`.

        The last that it gets of each is a piece that finishes, or an error; by then the generation's place is free. One
        that is cancelled before it has a sequence makes nothing but that piece.

        Raises TooBusyError where there is no place for all of them, and StoppingError after `cancel`.
        """
        ticket = Ticket(len(prompts))
        with self._lock:
            if self._closed:
                raise StoppingError
            if self._admitted + len(prompts) > self.largest:
                raise TooBusyError(
                    f"{self._running} generations run and {self.waiting} wait, and there is no place for "
                    f"{len(prompts)} more; try again later",
                    self._again_s(),
                )
            self._admitted += len(prompts)
            self._tickets[id(ticket)] = ticket
            now_s = time.monotonic()
            ticket.futures += [
                self._executor.submit(self._run, ticket, place, prompt, listener, now_s)
                for place, prompt in enumerate(prompts)
            ]

        def skip(place: int, future: Future[None]) -> None:
            if future.cancelled():
                self._release(ticket)
                listener(place, _CANCELLED)

        for place, future in enumerate(ticket.futures):
            future.add_done_callback(functools.partial(skip, place))
        return ticket

    def cancel(self) -> None:
        """Take nothing more, and cancel what runs and waits, without waiting for that. Idempotent."""
        with self._lock:
            self._closed = True
            tickets = list(self._tickets.values())
        for ticket in tickets:
            ticket.cancel()

    def close(self) -> None:
        """The same, and return when every sequence is closed."""
        self.cancel()
        self._executor.shutdown()

    def _again_s(self) -> int:
        rounds = (self.waiting + 1) / self.model.sequences
        return max(1, min(math.ceil(rounds * self._mean_s), _LONGEST_RETRY_S))

    def _release(self, ticket: Ticket) -> None:
        """One generation has ended, or will never begin."""
        with self._lock:
            self._admitted -= 1
            ticket.left -= 1
            if not ticket.left:
                del self._tickets[id(ticket)]

    def _run(self, ticket: Ticket, place: int, prompt: Prompt, listener: Listener, submitted_s: float) -> None:
        started_s = time.monotonic()
        self._metrics.queue_s.observe(started_s - submitted_s)
        with self._lock:
            self._running += 1
        try:
            last = self._generate(ticket, place, prompt, listener)
        finally:
            with self._lock:
                self._running -= 1
                self._mean_s += _RECENT * (time.monotonic() - started_s - self._mean_s)
            self._release(ticket)
        listener(place, last)

    def _generate(self, ticket: Ticket, place: int, prompt: Prompt, listener: Listener) -> Piece | Exception:
        """All pieces but the last go to `listener`; the last, or what failed, is returned, with the sequence closed."""
        last: Piece | Exception = _NOTHING
        try:
            with contextlib.closing(
                generate(self.model, self._tokenizer, prompt.tokens, prompt.options, cancelled=ticket.cancelled)
            ) as pieces:
                for last in pieces:
                    if last.finish is None:
                        listener(place, last)
        except TvmpipeError as error:
            logger.warning("a generation failed: %s", error)
            last = error
        except Exception:
            logger.exception("a generation failed")
            last = FaultError()
        if isinstance(last, Exception):
            self._metrics.failures.inc()
        elif last.usage is not None and last.finish is not None:
            self._metrics.count_generation(last.usage, last.finish)
        return last
