"""`/v1/completions`: text behind text."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tvmpipe.generation.generate import Piece
from tvmpipe.serve.text.engine import Prompt
from tvmpipe.serve.text.logprobs import completion_logprobs
from tvmpipe.serve.text.respond import Choice, answering, check_choices, check_model, read_body, respond
from tvmpipe.serve.text.schemas import CompletionRequest
from tvmpipe.serve.text.service import Service

_USUAL_TOKENS = 16


def routes(service: Service) -> list[BaseRoute]:
    """Its one route."""
    return [Route("/v1/completions", answering(service, _complete), methods=["POST"])]


async def _complete(request: Request, service: Service) -> Response:
    asked = await read_body(request, CompletionRequest)
    check_model(service, asked.model)
    check_choices(service, len(asked.prompt) * asked.choices)
    texts: list[str] = []
    prompts: list[Prompt] = []
    most = asked.max_tokens or _USUAL_TOKENS
    for one in asked.prompt:
        tokens = tuple(await asyncio.to_thread(service.tokenizer.encode, one) if isinstance(one, str) else one)
        echoed = "" if not asked.echo else one if isinstance(one, str) else service.tokenizer.decode(tokens)
        texts += [echoed] * asked.choices
        prompts += [
            Prompt(tokens, asked.generation_options(choice, most, asked.logprobs, service.draft))
            for choice in range(asked.choices)
        ]
    shape = _Shape(service, texts, asked.logprobs is not None)
    return await respond(request, service, prompts, shape, stream=bool(asked.stream), with_usage=asked.with_usage)


class _Shape:
    """Answers as objects of the kind `text_completion`. `echoes` stand in front of them."""

    def __init__(self, service: Service, echoes: Sequence[str], logprobs: bool) -> None:
        self._tokenizer = service.tokenizer
        self._echoes = echoes
        self._logprobs = logprobs
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": service.name,
        }

    def whole(self, choices: Sequence[Choice], usage: dict[str, int]) -> dict[str, Any]:
        told = [
            self._choice(place, echo + one.text, one)
            for place, (echo, one) in enumerate(zip(self._echoes, choices, strict=True))
        ]
        return self._head | {"choices": told, "usage": usage}

    def begin(self, place: int) -> dict[str, Any] | None:
        if not self._echoes[place]:
            return None
        return self._head | {"choices": [self._choice(place, self._echoes[place], None)]}

    def piece(self, place: int, piece: Piece) -> dict[str, Any]:
        return self._head | {"choices": [self._choice(place, piece.text, piece)]}

    def usage(self, usage: dict[str, int] | None) -> dict[str, Any]:
        return {"usage": None} if usage is None else self._head | {"choices": [], "usage": usage}

    def _choice(self, place: int, text: str, of: Choice | Piece | None) -> dict[str, Any]:
        logprobs = completion_logprobs(self._tokenizer, of.tokens) if self._logprobs and of is not None else None
        return {"text": text, "index": place, "logprobs": logprobs, "finish_reason": None if of is None else of.finish}
