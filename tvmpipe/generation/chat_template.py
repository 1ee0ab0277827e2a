"""A conversation as the text that a model was trained on."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypedDict

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from tvmpipe.errors import InputError, TokenizerError


class Message(TypedDict, total=False):
    """Who said what."""

    role: str
    content: str
    name: str
    tool_call_id: str


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` ... `{% endgeneration %}`, which marks for training what the model said; here it is that."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A Jinja template as transformers renders it, in a sandbox: it can neither import, nor change what it is given.

    Beside `messages` a template has `add_generation_prompt` (true), the special tokens by their names (`bos_token`),
    `raise_exception(sentence)`, `strftime_now(format)` and a `tojson` that escapes nothing. Raises TokenizerError for
    text that is no template; `source` is where it is from.
    """

    def __init__(self, text: str, source: str) -> None:
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _now
        self._source = source
        try:
            self._template = environment.from_string(text)
        except jinja2.TemplateError as error:
            raise TokenizerError(f"the chat template in {source} is no Jinja template: {error}") from None

    def render(self, messages: Sequence[Message], special: Mapping[str, str]) -> str:
        """Text of a conversation up to where the model's answer begins.

        Raises InputError where the template refuses these messages or fails on them.
        """
        try:
            return self._template.render(messages=list(messages), add_generation_prompt=True, tools=None, **special)
        except _RefusedError as error:
            raise InputError(f"the model's chat template refuses these messages: {error}") from None
        except Exception as error:  # noqa: BLE001 - a template is a program, which may raise anything
            raise InputError(f"the chat template in {self._source} failed on these messages: {error}") from None


class _RefusedError(Exception):
    """What a template calls `raise_exception` for."""


def _raise(sentence: object) -> NoReturn:
    raise _RefusedError(str(sentence))


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)
