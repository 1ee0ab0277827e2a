"""How a token is chosen, and when a generation ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tvmpipe.errors import InputError


@dataclass(frozen=True)
class SamplingOptions:
    """How `sample` chooses a token. The defaults change nothing: tokens are drawn as the model's logits say.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1 and `min_p` 0 keep every token; `repetition_penalty` 1 and the
    other penalties 0 leave logits alone. `logit_bias` adds to the logits of tokens by their ids. Raises InputError
    for a value out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require("temperature", self.temperature, self.temperature >= 0, "a number from 0 on")
        _require("top_k", self.top_k, self.top_k >= 0, "a number from 1 on, or 0 for all tokens")
        _require("top_p", self.top_p, 0 < self.top_p <= 1, "a number over 0 and up to 1")
        _require("min_p", self.min_p, 0 <= self.min_p <= 1, "a number from 0 to 1")
        _require("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0, "a number over 0")
        _require("presence_penalty", self.presence_penalty, True, "a number")
        _require("frequency_penalty", self.frequency_penalty, True, "a number")
        for token, bias in self.logit_bias.items():
            _require(f"logit_bias of token {token}", bias, token >= 0, "a number for a token from 0 on")

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is taken each time."""
        return self.temperature == 0


@dataclass(frozen=True)
class GenerationOptions:
    """What to generate: `max_tokens` at most, or as many as the context holds; until one of the `stop` strings.

    `seed` None takes another one each time. `draft` tokens at most are guessed from the text so far and tried at once;
    only greedy sampling may. With `ignore_eos` tokens that end a text are tokens as others. `top_logprobs` is how many
    of the most probable tokens are told beside each chosen one; None tells no probabilities at all.
    """

    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    draft: int = 0
    ignore_eos: bool = False
    top_logprobs: int | None = None

    def __post_init__(self) -> None:
        _require("max_tokens", self.max_tokens, self.max_tokens is None or self.max_tokens >= 1, "a number from 1 on")
        _require("seed", self.seed, self.seed is None or self.seed >= 0, "a number from 0 on")
        _require("draft", self.draft, self.draft >= 0, "a number from 1 on, or 0 for none")
        if "" in self.stop:
            raise InputError("a stop string is empty; at least one character is needed")
        if self.draft and not self.sampling.greedy:
            raise InputError(
                f"drafts of {self.draft} tokens need greedy sampling, and the temperature is "
                f"{self.sampling.temperature:g}; set it to 0"
            )


def _require(name: str, value: float | None, allowed: bool, told: str) -> None:
    if not allowed or (value is not None and not math.isfinite(value)):
        raise InputError(f"{name} is {value}, and must be {told}")
