"""An application from its routes: who may ask, what is counted, and what becomes of other paths."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tvmpipe.serve.access import Guard
from tvmpipe.serve.errors import RequestError
from tvmpipe.serve.metrics import RequestMetrics

Lifespan = Callable[[Starlette], contextlib.AbstractAsyncContextManager[None]]


def make_app(
    routes: Sequence[BaseRoute],
    metrics: RequestMetrics,
    token: str | None,
    respond: Callable[[Exception], Response],
    lifespan: Lifespan,
) -> Starlette:
    """The application; `respond` makes the answer of an error, `lifespan` is what lives as long as it does."""

    async def no_route(request: Request, error: Exception) -> Response:
        """What Starlette itself refuses: another path, or another method."""
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return respond(RequestError(404, f"there is no {request.url.path} here", code="not_found"))
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{request.url.path} takes {allowed}, not {request.method}" if allowed else error.detail
        return respond(RequestError(error.status_code, message, headers=dict(error.headers or {})))

    return Starlette(
        routes=routes,
        middleware=[
            Middleware(_Counted, metrics=metrics, known={getattr(route, "path", "") for route in routes}),
            Middleware(Guard, token=token, refuse=respond),
        ],
        exception_handlers={HTTPException: no_route},
        lifespan=lifespan,
    )


class _Counted:
    """Counts answers by route and status."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics, known: set[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = _route(scope)
                self._metrics.count_request(route if route in self._known else "other", message["status"])
            await send(message)

        await self._app(scope, receive, counting if scope["type"] == "http" else send)


def _route(scope: Scope) -> str:
    """The path with the names of its parameters in place of their values."""
    path: str = scope["path"]
    for name, value in scope.get("path_params", {}).items():
        path = path.replace(f"/{value}", f"/{{{name}}}", 1)
    return path
