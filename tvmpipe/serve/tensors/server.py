"""A model without states as a server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tvmpipe.errors import TvmpipeError
from tvmpipe.runtime.head.pipeline import Pipeline
from tvmpipe.serve.app import make_app
from tvmpipe.serve.server import HttpServer, ServeOptions
from tvmpipe.serve.tensors.errors import error_response
from tvmpipe.serve.tensors.metrics import TensorMetrics
from tvmpipe.serve.tensors.model import TensorModel
from tvmpipe.serve.tensors.routes import routes

Beside = Callable[[TensorModel, str | None], AbstractAsyncContextManager[object]]
"""What is served beside HTTP, in the same event loop, to whoever has the token."""


class TensorServer(HttpServer):
    """A pipeline under a name, which stays the caller's. `beside` lives as long as the server answers.

    Raises InputError as HttpServer does, and for a model with states.
    """

    def __init__(self, pipe: Pipeline, name: str, options: ServeOptions, beside: Beside | None = None) -> None:
        self._failure: TvmpipeError | None = None
        metrics = TensorMetrics()
        self.model = model = TensorModel(name, pipe, metrics, options.queue)

        def make(token: str | None) -> Starlette:
            @contextlib.asynccontextmanager
            async def lifespan(_: Starlette) -> AsyncIterator[None]:
                async with contextlib.AsyncExitStack() as stack:
                    if beside is not None:
                        try:
                            await stack.enter_async_context(beside(model, token))
                        except TvmpipeError as error:  # uvicorn would make a traceback of it
                            self._failure = error
                            self.stop()
                    yield

            async def health(_: Request) -> Response:
                facts = {"status": "ok" if model.ready else "failed", "waiting": model.waiting}
                return JSONResponse(facts, 200 if model.ready else 503)

            async def figures(_: Request) -> Response:
                return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

            own = [Route("/healthz", health, methods=["GET"]), Route("/metrics", figures, methods=["GET"])]
            return make_app([*routes(model), *own], metrics, token, error_response, lifespan)

        super().__init__(make, options, 2 * (pipe.inflight + options.queue), model.cancel)

    def run(self) -> None:
        """As HttpServer's. Raises what kept `beside` from being served."""
        super().run()
        if self._failure is not None:
            raise self._failure
