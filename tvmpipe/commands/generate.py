"""`generate`: text that a model goes on with, as it comes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tvmpipe.commands.outcome import Outcome
from tvmpipe.commands.progress import stderr
from tvmpipe.console import plain
from tvmpipe.errors import InputError
from tvmpipe.files import require_file
from tvmpipe.generation.chat_template import Message
from tvmpipe.generation.generate import FinishReason, Piece, Usage, generate
from tvmpipe.generation.language_model import LanguageModel
from tvmpipe.generation.open_model import open_language_model
from tvmpipe.generation.options import GenerationOptions
from tvmpipe.generation.tokenizer import Tokenizer, load_tokenizer
from tvmpipe.runtime.head.options import ConnectOptions
from tvmpipe.text import clean_lines
from tvmpipe.units import format_duration


def generate_text(
    bundle: Path,
    *,
    tracker: str,
    tokenizer: Path,
    prompt: str | None,
    prompt_file: Path | None,
    chat: bool,
    system: str | None,
    quiet: bool,
    generating: GenerationOptions,
    connecting: ConnectOptions,
) -> Outcome | None:
    """Go on with a prompt, or answer it as a message with `chat`; the text streams to stdout.

    With `chat` and no prompt, each line of stdin is a message of one conversation. With `quiet` nothing streams and the
    outcome has the text and the figures. Raises InputError, TokenizerError and what generation raises.
    """
    text = _read_prompt(prompt, prompt_file)
    if text is None and (quiet or not chat):
        raise InputError("there is no prompt: give --prompt TEXT or --prompt-file FILE, or --chat for a conversation")
    if system is not None and not chat:
        raise InputError("--system is a message of a conversation; give --chat too")
    one = load_tokenizer(tokenizer)
    messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    # What cannot be encoded is told before devices are looked for.
    encode = _conversation(one, messages) if chat else one.encode
    tokens = None if text is None else encode(text)
    with open_language_model(bundle, tracker, connecting) as model:
        if tokens is not None:
            return _answer(model, one, tokens, generating, quiet)[1]
        for line in _lines():
            answer, _ = _answer(model, one, encode(line), generating, quiet)
            messages.append({"role": "assistant", "content": answer})
    return None


def _read_prompt(prompt: str | None, path: Path | None) -> str | None:
    if path is None:
        return prompt
    if prompt is not None:
        raise InputError("--prompt and --prompt-file both say what to go on with; give one")
    if str(path) == "-":
        return sys.stdin.read()
    require_file(path, "prompt file", InputError)
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise InputError(f"prompt file {path} is not UTF-8: {error}") from None


def _conversation(tokenizer: Tokenizer, messages: list[Message]) -> Callable[[str], list[int]]:
    """A function that adds what the user says to `messages` and encodes them all."""

    def say(text: str) -> list[int]:
        messages.append({"role": "user", "content": text})
        return tokenizer.encode_chat(messages)

    return say


def _lines() -> Iterator[str]:
    """What the user says, line by line, until the end of stdin."""
    while True:
        if sys.stdin.isatty():
            stderr.print("> ", end="")
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _answer(
    model: LanguageModel, tokenizer: Tokenizer, tokens: list[int], options: GenerationOptions, quiet: bool
) -> tuple[str, Outcome]:
    with contextlib.closing(generate(model, tokenizer, tokens, options)) as pieces:
        text, last = _show(pieces, quiet)
    assert last.finish is not None
    assert last.usage is not None
    facts = {"text": text, "finish": last.finish, **_facts(last.usage)}
    line = _figures(last.usage, last.finish)
    if not quiet:
        stderr.print(plain(line), soft_wrap=True)
    return text, Outcome(facts, plain(line))


def _show(pieces: Iterable[Piece], quiet: bool) -> tuple[str, Piece]:
    """Print pieces as they come; the whole text and the last piece."""
    shown = []
    last = None
    for last in pieces:
        shown.append(last.text)
        if not quiet:
            _write(last.text if last.finish is None else f"{last.text}\n")
    assert last is not None
    return "".join(shown), last


def _write(text: str) -> None:
    """Text on stdout at once; what a terminal would obey is spelled out."""
    try:
        sys.stdout.write("\t".join(map(clean_lines, text.split("\t"))) if sys.stdout.isatty() else text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try again at its end
        raise InputError("nobody reads the text any more: stdout is closed") from None


def _facts(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "generated_tokens": usage.generated_tokens,
        "first_token_s": usage.first_token_s,
        "total_s": usage.total_s,
        "prompt_tokens_per_s": usage.prompt_rate,
        "generated_tokens_per_s": usage.generation_rate,
        "drafted_tokens": usage.drafted_tokens,
        "accepted_tokens": usage.accepted_tokens,
    }


def _figures(usage: Usage, finish: FinishReason) -> str:
    line = (
        f"prompt: {usage.prompt_tokens} tokens, first token after {format_duration(usage.first_token_s)} "
        f"({usage.prompt_rate:.1f} tokens/s); answer: {usage.generated_tokens} tokens, "
        f"{usage.generation_rate:.1f} tokens/s; {_FINISHES[finish]}"
    )
    if usage.drafted_tokens:
        line += f"; {usage.accepted_tokens} of {usage.drafted_tokens} drafted tokens were right"
    return line


_FINISHES: dict[FinishReason, str] = {
    "stop": "the text ended",
    "length": "no more tokens were asked for, or fit the context",
    "cancelled": "cancelled",
}
