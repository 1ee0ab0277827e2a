"""`/v1/chat/completions`: what comes next in a conversation."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tvmpipe.generation.generate import FinishReason, Piece
from tvmpipe.serve.text.engine import Prompt
from tvmpipe.serve.text.logprobs import chat_logprobs
from tvmpipe.serve.text.respond import Choice, answering, check_choices, check_model, read_body, respond
from tvmpipe.serve.text.schemas import ChatRequest
from tvmpipe.serve.text.service import Service


def routes(service: Service) -> list[BaseRoute]:
    """Its one route."""
    return [Route("/v1/chat/completions", answering(service, _chat), methods=["POST"])]


async def _chat(request: Request, service: Service) -> Response:
    asked = await read_body(request, ChatRequest)
    check_model(service, asked.model)
    check_choices(service, asked.choices)
    messages = [message.as_message() for message in asked.messages]
    tokens = tuple(await asyncio.to_thread(service.tokenizer.encode_chat, messages))
    most = asked.max_completion_tokens or asked.max_tokens
    top = (asked.top_logprobs or 0) if asked.logprobs else None
    prompts = [
        Prompt(tokens, asked.generation_options(choice, most, top, service.draft)) for choice in range(asked.choices)
    ]
    shape = _Shape(service, bool(asked.logprobs))
    return await respond(request, service, prompts, shape, stream=bool(asked.stream), with_usage=asked.with_usage)


class _Shape:
    """Answers as objects of the kind `chat.completion`, and `chat.completion.chunk` in streams."""

    def __init__(self, service: Service, logprobs: bool) -> None:
        self._tokenizer = service.tokenizer
        self._logprobs = logprobs
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": service.name}

    def whole(self, choices: Sequence[Choice], usage: dict[str, int]) -> dict[str, Any]:
        told = [
            {
                "index": place,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "logprobs": chat_logprobs(self._tokenizer, choice.tokens) if self._logprobs else None,
                "finish_reason": choice.finish,
            }
            for place, choice in enumerate(choices)
        ]
        return {**self._head, "object": "chat.completion", "choices": told, "usage": usage}

    def begin(self, place: int) -> dict[str, Any] | None:
        return self._chunk(place, {"role": "assistant", "content": ""})

    def piece(self, place: int, piece: Piece) -> dict[str, Any]:
        logprobs = chat_logprobs(self._tokenizer, piece.tokens) if self._logprobs and piece.tokens else None
        return self._chunk(place, {"content": piece.text} if piece.text else {}, logprobs, piece.finish)

    def usage(self, usage: dict[str, int] | None) -> dict[str, Any]:
        if usage is None:
            return {"usage": None}
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage}

    def _chunk(
        self,
        place: int,
        delta: dict[str, str],
        logprobs: dict[str, Any] | None = None,
        finish: FinishReason | None = None,
    ) -> dict[str, Any]:
        choice = {"index": place, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
