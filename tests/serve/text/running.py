"""A server in a thread, and plain HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.generation.fakes import TableModel, make_tokenizer
from tests.waiting import PATIENCE_S, wait_until
from tvmpipe.generation.generate import generate
from tvmpipe.generation.options import GenerationOptions, SamplingOptions
from tvmpipe.serve.server import ServeOptions
from tvmpipe.serve.text.server import TextServer

TOKENIZER = make_tokenizer()
NAME = "a table"
GREEDY = SamplingOptions(temperature=0)


def make_model(**options: Any) -> TableModel:
    return TableModel(TOKENIZER.size, **{"never": range(4), **options})


@contextlib.contextmanager
def serving(model: TableModel, **options: Any) -> Iterator[TextServer]:
    """A server on any port, until the context ends; by then no sequence is open."""
    draft = options.pop("draft", 0)
    server = TextServer(model, TOKENIZER, NAME, ServeOptions(**{"port": 0, "drain_s": 5, **options}), draft)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert model.open == 0


def settled(model: TableModel) -> None:
    """Wait until no sequence is open."""
    wait_until(lambda: model.open == 0, lambda: f"{model.open} sequences are open")


def text_of(model: TableModel, prompt: list[int], **options: Any) -> str:
    """What the server must answer."""
    asked = GenerationOptions(**{"sampling": GREEDY, **options})
    return "".join(piece.text for piece in generate(model, TOKENIZER, prompt, asked))


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The one sentence of an error."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        message = error["message"]
        assert isinstance(message, str)
        assert "\n" not in message
        return message


def ask(
    port: int, path: str, body: object = None, *, headers: Mapping[str, str] | None = None, method: str | None = None
) -> Answer:
    """One request; `body` is sent as JSON, or as it is where it is bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        sent = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        kind = {} if sent is None else {"Content-Type": "application/json"}
        connection.request(method or ("GET" if sent is None else "POST"), path, sent, {**kind, **(headers or {})})
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): one for name, one in response.getheaders()}, response.read())
    finally:
        connection.close()


def complete(port: int, **fields: Any) -> Answer:
    """A greedy completion."""
    return ask(port, "/v1/completions", {"model": NAME, "prompt": "The", "temperature": 0, **fields})
