"""`tvmpipe serve` as people type it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tvm  # noqa: F401 - all of it, before the command imports its runtime alone: other tests in this process compile

from tests.generation.fakes import byte_level
from tests.serve.text.running import ask, make_model
from tests.test_cli import sentence, tvmpipe
from tests.waiting import PATIENCE_S
from tvmpipe.serve.text.server import TextServer


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[object]:
    @contextlib.contextmanager
    def opened(*_: object) -> Iterator[Any]:
        yield make_model()

    monkeypatch.setattr("tvmpipe.generation.open_model.open_language_model", opened)
    byte_level().save(str(tmp_path / "tokenizer.json"))
    return ["serve", tmp_path / "gpt.tvmpipe", "--tokenizer", tmp_path, "--tracker", "127.0.0.1:1"]


def test_a_model_under_its_bundles_name(command: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    run = TextServer.run
    found = []

    def run_a_while(server: TextServer) -> None:
        thread = threading.Thread(target=run, args=(server,))
        thread.start()
        found.append(ask(server.port, "/v1/models").json["data"][0]["id"])
        server.stop()
        thread.join(PATIENCE_S)

    monkeypatch.setattr(TextServer, "run", run_a_while)
    _, err = tvmpipe(*command, "--port", 0, "--queue", 3)
    assert "serving gpt on http://127.0.0.1:" in err
    assert "4 sequences at once, 3 more wait" in err
    _, err = tvmpipe(*command, "--port", 0, "--name", "other")
    assert found == ["gpt", "other"]


def test_mistakes(command: list[object], tmp_path: Path) -> None:
    _, err = tvmpipe(*command, "--host", "0.0.0.0", code=1)
    assert "0.0.0.0 is not loopback: whoever reaches it could use the model; give --token-file" in sentence(err)
    _, err = tvmpipe(*command, "--token-file", tmp_path / "none", code=1)
    assert "token file" in sentence(err)
    _, err = tvmpipe(*command, "--grpc-port", 8001, code=1)
    assert "--grpc-port serves tensors" in sentence(err)
    _, err = tvmpipe("serve", tmp_path / "gpt.tvmpipe", "--tracker", "127.0.0.1:1", "--draft", 3, code=1)
    assert "--draft guesses tokens of text, which needs --tokenizer" in sentence(err)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        _, err = tvmpipe(*command, "--port", port, code=1)
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in sentence(err)
