"""Log-probabilities as OpenAI's API writes them, which is different for completions and for chats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvmpipe.generation.generate import TokenChoice
from tvmpipe.generation.tokenizer import Tokenizer

_LEAST = -9999.0  # what stands for minus infinity, which JSON cannot write


def completion_logprobs(tokenizer: Tokenizer, choices: Sequence[TokenChoice]) -> dict[str, Any]:
    """Four lists with one entry for each token. `text_offset` counts characters from where the answer begins."""
    names = [_name(tokenizer, choice.token) for choice in choices]
    return {
        "tokens": names,
        "token_logprobs": [_finite(choice.logprob) for choice in choices],
        "top_logprobs": [
            {_name(tokenizer, token): _finite(logprob) for token, logprob in choice.top} for choice in choices
        ],
        "text_offset": [choice.begin for choice in choices],
    }


def chat_logprobs(tokenizer: Tokenizer, choices: Sequence[TokenChoice]) -> dict[str, Any]:
    """A list of tokens, each with the most probable ones in its place."""
    return {
        "content": [
            {
                **_entry(tokenizer, choice.token, choice.logprob),
                "top_logprobs": [_entry(tokenizer, token, logprob) for token, logprob in choice.top],
            }
            for choice in choices
        ],
        "refusal": None,
    }


def _entry(tokenizer: Tokenizer, token: int, logprob: float | None) -> dict[str, Any]:
    text = tokenizer.token_bytes(token)
    return {"token": text.decode(errors="replace"), "logprob": _finite(logprob), "bytes": list(text)}


def _name(tokenizer: Tokenizer, token: int) -> str:
    """A token as text, or, where it is only a part of a character, as its bytes."""
    text = tokenizer.token_bytes(token)
    try:
        return text.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in text)


def _finite(logprob: float | None) -> float:
    return _LEAST if logprob is None else max(logprob, _LEAST)
