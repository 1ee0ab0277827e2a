"""The fields of requests: those of OpenAI's API that mean something here, and a few that others have added to it.

A field that would change the answer, and cannot be obeyed, is refused; those about accounts and caches are taken and
change nothing. None is as left out.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tvmpipe.generation.chat_template import Message
from tvmpipe.generation.options import GenerationOptions, SamplingOptions

MOST_STOPS = 16
MOST_CHOICES = 128
_IGNORED = (
    "metadata", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention", "safety_identifier",
    "service_tier", "store", "user", "verbosity",
)  # fmt: skip
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio: seeds that are far from each other


class StreamOptions(BaseModel):
    """What a stream ends with."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    include_usage: bool = False
    include_obfuscation: bool = False


class TextRequest(BaseModel):
    """What both kinds of completions have."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    # Not OpenAI's, but of other servers.
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    ignore_eos: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _ignore(cls, fields: Any) -> Any:
        return (
            {name: one for name, one in fields.items() if name not in _IGNORED} if isinstance(fields, dict) else fields
        )

    @field_validator("stop", mode="before")
    @classmethod
    def _few_stops(cls, stop: Any) -> Any:
        words = [] if stop is None else [stop] if isinstance(stop, str) else stop
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError("must be a string or a list of strings")
        if len(words) > MOST_STOPS or "" in words:
            raise ValueError(f"may have {MOST_STOPS} strings at most, none of them empty")
        return words

    @field_validator("logit_bias")
    @classmethod
    def _token_numbers(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        wrong = next((token for token in bias or () if not re.fullmatch("[0-9]{1,9}", token)), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r} is no token's number")
        return bias

    @model_validator(mode="after")
    def _options_of_streams(self) -> TextRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options are for requests with stream set to true")
        return self

    @property
    def choices(self) -> int:
        """Answers to each prompt."""
        return self.n or 1

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the number of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def generation_options(
        self, choice: int, max_tokens: int | None, top_logprobs: int | None, draft: int
    ) -> GenerationOptions:
        """Of one of the choices; each has a seed of its own. `draft` counts where sampling is greedy."""
        sampling = SamplingOptions(
            temperature=_default(self.temperature, 1.0),
            top_k=max(self.top_k or 0, 0),
            top_p=_default(self.top_p, 1.0),
            min_p=self.min_p or 0.0,
            repetition_penalty=_default(self.repetition_penalty, 1.0),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias={int(token): bias for token, bias in (self.logit_bias or {}).items()},
        )
        return GenerationOptions(
            sampling,
            max_tokens=max_tokens,
            stop=tuple(self.stop or ()),
            seed=None if self.seed is None else (self.seed + choice * _GOLDEN) % 2**64,
            draft=draft if sampling.greedy else 0,
            ignore_eos=bool(self.ignore_eos),
            top_logprobs=top_logprobs,
        )


class CompletionRequest(TextRequest):
    """`/v1/completions`. Prompts are texts, or lists of tokens."""

    prompt: list[str] | list[list[int]]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: int | None = None
    suffix: str | None = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _several(cls, prompt: Any) -> Any:
        if isinstance(prompt, str):
            return [prompt]
        if isinstance(prompt, list) and prompt:
            if all(_is_token(one) for one in prompt):
                return [prompt]
            tokens = all(isinstance(one, list) and one and all(map(_is_token, one)) for one in prompt)
            if tokens or all(isinstance(one, str) for one in prompt):
                return prompt
        raise ValueError("must be a string, a list of strings, a list of tokens' numbers, or a list of such lists")

    @model_validator(mode="after")
    def _what_there_is_not(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != self.choices:
            raise ValueError("best_of may only be as n: all answers are returned")
        if self.suffix:
            raise ValueError("suffix is not supported: text is only added behind the prompt")
        if self.echo and self.logprobs is not None:
            raise ValueError("echo and logprobs together are not supported: prompts have no log-probabilities here")
        return self


class ChatMessage(BaseModel):
    """Who said what; `content` is text, or a list of parts that are text."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    role: str
    content: str | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: None = None
    refusal: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, content: Any) -> Any:
        if not isinstance(content, list):
            return content
        parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
        if len(parts) < len(content) or not all(isinstance(part.get("text"), str) for part in parts):
            raise ValueError("may have parts of the type 'text' only")
        return "".join(part["text"] for part in parts)

    def as_message(self) -> Message:
        """As chat templates take it."""
        message: Message = {"role": self.role, "content": self.content or ""}
        if self.name is not None:
            message["name"] = self.name
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message


class _ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    type: Literal["text"]


class ChatRequest(TextRequest):
    """`/v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: _ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None

    @model_validator(mode="after")
    def _logprobs_of_what(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs are for requests with logprobs set to true")
        return self


def _default(value: float | None, usual: float) -> float:
    return usual if value is None else value


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
