"""What a server of text has done, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from tvmpipe.generation.generate import FinishReason, Usage
from tvmpipe.serve.metrics import RequestMetrics

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics(RequestMetrics):
    """What a server of text counts."""

    def __init__(self) -> None:
        super().__init__()
        registry = self.registry
        self._prompt = Counter("tvmpipe_serve_prompt_tokens", "Tokens of prompts.", registry=registry)
        self._generated = Counter("tvmpipe_serve_generated_tokens", "Tokens of answers.", registry=registry)
        self._drafted = Counter("tvmpipe_serve_drafted_tokens", "Tokens that were guessed.", registry=registry)
        self._accepted = Counter("tvmpipe_serve_accepted_tokens", "Guesses that were right.", registry=registry)
        self._finished = Counter(
            "tvmpipe_serve_generations", "Generations by why they ended.", ("finish",), registry=registry
        )
        self.failures = Counter("tvmpipe_serve_failed_generations", "Generations that failed.", registry=registry)
        self.queue_s = Histogram(
            "tvmpipe_serve_queue_seconds", "Time to wait for a sequence.", buckets=_SECONDS, registry=registry
        )
        self._first_s = Histogram(
            "tvmpipe_serve_first_token_seconds",
            "Time from having a sequence to the first token.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._token_s = Histogram(
            "tvmpipe_serve_token_seconds",
            "Mean time between the tokens of an answer.",
            buckets=_TOKEN_SECONDS,
            registry=registry,
        )

    def watch(self, running: Callable[[], int], waiting: Callable[[], int], sequences: int) -> None:
        """Have gauges say what these functions return."""
        told: list[tuple[str, str, Callable[[], int]]] = [
            ("tvmpipe_serve_sequences_open", "Sequences under way.", running),
            ("tvmpipe_serve_sequences_waiting", "Generations that wait for a sequence.", waiting),
            ("tvmpipe_serve_sequences", "Sequences that may be open at once.", lambda: sequences),
        ]
        for name, text, function in told:
            Gauge(name, text, registry=self.registry).set_function(function)

    def count_generation(self, usage: Usage, finish: FinishReason) -> None:
        """A generation has ended."""
        self._finished.labels(finish).inc()
        self._prompt.inc(usage.prompt_tokens)
        self._generated.inc(usage.generated_tokens)
        self._drafted.inc(usage.drafted_tokens)
        self._accepted.inc(usage.accepted_tokens)
        if usage.first_token_s:
            self._first_s.observe(usage.first_token_s)
        if usage.generation_rate:
            self._token_s.observe(1 / usage.generation_rate)
