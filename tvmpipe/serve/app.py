"""All routes of a server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tvmpipe.serve import chat, completions, models, status
from tvmpipe.serve.access import Guard
from tvmpipe.serve.errors import RequestError, error_response
from tvmpipe.serve.metrics import Metrics
from tvmpipe.serve.service import Service

GROUPS = (completions.routes, chat.routes, models.routes, status.routes)
"""Each file of routes has a function of the service that returns them."""


def make_app(service: Service, token: str | None) -> Starlette:
    """The application; when it ends, so do all generations."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.engine.close)

    routes = [route for group in GROUPS for route in group(service)]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(_Counted, metrics=service.metrics, known={getattr(route, "path", "") for route in routes}),
            Middleware(Guard, token=token),
        ],
        exception_handlers={HTTPException: _no_route},
        lifespan=lifespan,
    )


async def _no_route(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: another path, or another method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_response(RequestError(404, f"there is no {request.url.path} here", code="not_found"))
    allowed = (error.headers or {}).get("Allow", "")
    message = f"{request.url.path} takes {allowed}, not {request.method}" if allowed else error.detail
    return error_response(RequestError(error.status_code, message, headers=dict(error.headers or {})))


class _Counted:
    """Counts answers by route and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics, known: set[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope["path"] if scope["path"] in self._known else "other"
                self._metrics.count_request(route, message["status"])
            await send(message)

        await self._app(scope, receive, counting if scope["type"] == "http" else send)
