"""From a request that was read to its answer, whole or as a stream of server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tvmpipe.generation.generate import FinishReason, Piece, TokenChoice, check_prompt
from tvmpipe.serve.disconnect import DisconnectedError, while_connected
from tvmpipe.serve.errors import RequestError, as_request_error, error_body, error_response
from tvmpipe.serve.text.answers import Answers
from tvmpipe.serve.text.engine import Prompt
from tvmpipe.serve.text.service import Service

LARGEST_BODY_BYTES = 16 << 20
GONE = 499
"""The status of a request whose client left, as nginx counts it; nobody receives it."""

Schema = TypeVar("Schema", bound=BaseModel)


@dataclass
class Choice:
    """One answer as far as it has come."""

    text: str = ""
    tokens: list[TokenChoice] = field(default_factory=list)
    finish: FinishReason | None = None


class Shape(Protocol):
    """How one kind of completion writes its answers."""

    def whole(self, choices: Sequence[Choice], usage: dict[str, int]) -> dict[str, Any]:
        """The answer as one object."""
        ...

    def begin(self, place: int) -> dict[str, Any] | None:
        """What a choice's part of a stream begins with, if anything does."""
        ...

    def piece(self, place: int, piece: Piece) -> dict[str, Any]:
        """A piece of text of a stream."""
        ...

    def usage(self, usage: dict[str, int] | None) -> dict[str, Any]:
        """What the last object of a stream has, and with None what all others have in its place."""
        ...


async def read_body(request: Request, schema: type[Schema]) -> Schema:
    """The request's fields. Raises RequestError for another content type and a body too long, and ValidationError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # which a browser sends for pages of other sites only after it has asked
        raise RequestError(415, "the content type of a request must be application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY_BYTES:
            raise RequestError(413, f"the request has more than {LARGEST_BODY_BYTES} bytes")
    return schema.model_validate_json(bytes(body))


def check_model(service: Service, name: str) -> None:
    """Raises RequestError for a model that is not served."""
    if name != service.name:
        raise RequestError(
            404, f"there is no model {name!r} here; there is {service.name!r}", param="model", code="model_not_found"
        )


def check_choices(service: Service, count: int) -> None:
    """Raises RequestError for more answers in one request than there will ever be places for."""
    if count > service.engine.largest:
        raise RequestError(400, f"the request asks for {count} answers, and may for {service.engine.largest} at most")


async def respond(
    request: Request, service: Service, prompts: Sequence[Prompt], shape: Shape, *, stream: bool, with_usage: bool
) -> Response:
    """Generate for all prompts (of which each stands there once for each of its choices), and answer.

    An error before the first piece is raised; later it is the last event of the stream. Raises DisconnectedError when
    the client goes before there is anything to answer.
    """
    for tokens in {id(prompt.tokens): prompt.tokens for prompt in prompts}.values():
        check_prompt(tokens, service.engine.model)
    answers = Answers(service.engine, prompts)
    handed_on = False
    try:
        pieces = answers.pieces()
        if not stream:
            return JSONResponse(await while_connected(request.receive, _collect(pieces, prompts, shape)))
        first = await while_connected(request.receive, anext(pieces))
        handed_on = True
        return _EventStream(service, answers, _events(first, pieces, prompts, shape, with_usage))
    finally:
        if not handed_on:
            answers.cancel()


async def _collect(pieces: AsyncIterator[tuple[int, Piece]], prompts: Sequence[Prompt], shape: Shape) -> dict[str, Any]:
    choices = [Choice() for _ in prompts]
    generated = 0
    async for place, piece in pieces:
        choice = choices[place]
        choice.text += piece.text
        choice.tokens += piece.tokens
        choice.finish = piece.finish
        generated += piece.usage.generated_tokens if piece.usage else 0
    return shape.whole(choices, _usage(prompts, generated))


async def _events(
    first: tuple[int, Piece],
    rest: AsyncIterator[tuple[int, Piece]],
    prompts: Sequence[Prompt],
    shape: Shape,
    with_usage: bool,
) -> AsyncIterator[dict[str, Any]]:
    begun: set[int] = set()
    generated = 0
    more: dict[str, Any] = shape.usage(None) if with_usage else {}
    async for place, piece in _chained(first, rest):
        if place not in begun:
            begun.add(place)
            beginning = shape.begin(place)
            if beginning is not None:
                yield beginning | more
        yield shape.piece(place, piece) | more
        generated += piece.usage.generated_tokens if piece.usage else 0
    if with_usage:
        yield shape.usage(_usage(prompts, generated))


async def _chained(
    first: tuple[int, Piece], rest: AsyncIterator[tuple[int, Piece]]
) -> AsyncIterator[tuple[int, Piece]]:
    yield first
    async for one in rest:
        yield one


def _usage(prompts: Sequence[Prompt], generated: int) -> dict[str, int]:
    """Tokens; those of a prompt count once, however many answers it has."""
    asked = sum(len(tokens) for tokens in {id(prompt.tokens): prompt.tokens for prompt in prompts}.values())
    return {"prompt_tokens": asked, "completion_tokens": generated, "total_tokens": asked + generated}


class _EventStream(Response):
    """Server-sent events, each a JSON object, then `[DONE]`; the generations end when the client goes."""

    media_type = "text/event-stream"

    def __init__(self, service: Service, answers: Answers, events: AsyncIterator[dict[str, Any]]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._service = service
        self._answers = answers
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_connected(receive, self._send(send))
        except (DisconnectedError, OSError):
            self._service.metrics.count_disconnect()
        finally:
            self._answers.cancel()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for event in self._events:
                await send({"type": "http.response.body", "body": _line(event), "more_body": True})
            last = b"data: [DONE]\n\n"
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - the status has gone out; the client learns it from the stream
            last = _line(error_body(as_request_error(error)))
        await send({"type": "http.response.body", "body": last, "more_body": False})


def _line(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def answering(
    service: Service, endpoint: Callable[[Request, Service], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint with its errors as answers; it raises nothing."""

    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request, service)
        except (DisconnectedError, ClientDisconnect):
            service.metrics.count_disconnect()
            return Response(status_code=GONE)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is logged, and the client gets one sentence
            return error_response(error)

    return answered
