"""A language model as a server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette

from tvmpipe.generation.language_model import LanguageModel
from tvmpipe.generation.tokenizer import Tokenizer
from tvmpipe.serve.app import make_app
from tvmpipe.serve.errors import error_response
from tvmpipe.serve.server import HttpServer, ServeOptions
from tvmpipe.serve.text import chat, completions, models, status
from tvmpipe.serve.text.engine import Engine
from tvmpipe.serve.text.metrics import Metrics
from tvmpipe.serve.text.service import Service

GROUPS = (completions.routes, chat.routes, models.routes, status.routes)
"""Each file of routes has a function of the service that returns them."""


class TextServer(HttpServer):
    """A model under a name; `draft` tokens at most are guessed for greedy requests. When it ends, so do generations."""

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, name: str, options: ServeOptions, draft: int = 0
    ) -> None:
        metrics = Metrics()
        self.engine = Engine(model, tokenizer, metrics, options.queue)
        service = Service(name, self.engine, tokenizer, metrics, draft)
        routes = [route for group in GROUPS for route in group(service)]
        try:
            super().__init__(
                lambda token: make_app(routes, metrics, token, error_response, self._lifespan),
                options,
                2 * self.engine.largest,
                self.engine.cancel,
            )
        except BaseException:
            self.engine.close()
            raise

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(self.engine.close)

    def run(self) -> None:
        try:
            super().run()
        finally:
            self.engine.close()
