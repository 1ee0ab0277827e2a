"""Requests that are wrong, or of somebody who may not ask: a status and one sentence for each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.generation.fakes import TableModel
from tests.serve.text.running import NAME, TOKENIZER, Answer, ask, complete, make_model, serving
from tests.waiting import no_hang
from tvmpipe.errors import InputError, StageError
from tvmpipe.serve.access import load_token
from tvmpipe.serve.server import ServeOptions
from tvmpipe.serve.text import respond
from tvmpipe.serve.text.server import TextServer

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def server() -> Iterator[TextServer]:
    with serving(make_model(context=64), queue=4) as server:
        yield server


@pytest.mark.parametrize(
    ("fields", "status", "told"),
    [
        ({"model": "gpt-4"}, 404, "there is no model 'gpt-4' here; there is 'a table'"),
        ({"temperature": 3}, 400, "temperature: input should be less than or equal to 2"),
        ({"temperature": "hot"}, 400, "temperature: input should be a valid number"),
        ({"top_p": 0}, 400, "top_p: input should be greater than 0"),
        ({"n": 0}, 400, "n: input should be greater than or equal to 1"),
        ({"n": 9}, 400, "the request asks for 9 answers, and may for 8 at most"),
        ({"max_tokens": 0}, 400, "max_tokens: input should be greater than or equal to 1"),
        ({"max_tokens": 1.5}, 400, "max_tokens: input should be a valid integer"),
        ({"temprature": 1}, 400, "there is no parameter 'temprature'"),
        ({"prompt": None}, 400, "prompt: must be a string, a list of strings, a list of tokens' numbers, or a list of"),
        ({"prompt": []}, 400, "prompt: must be a string"),
        ({"prompt": [True]}, 400, "prompt: must be a string"),
        ({"prompt": ["a", [1]]}, 400, "prompt: must be a string"),
        ({"prompt": ""}, 400, "the prompt has no tokens; at least one is needed"),
        ({"prompt": [5, 10**30]}, 400, "and the model's tokens are 0 to "),
        ({"prompt": [5] * 64}, 400, "the prompt has 64 tokens, and the model's context of 64 must hold the answer too"),
        ({"stop": ["a"] * 17}, 400, "stop: may have 16 strings at most, none of them empty"),
        ({"stop": ""}, 400, "stop: may have 16 strings at most, none of them empty"),
        ({"stop": 5}, 400, "stop: must be a string or a list of strings"),
        ({"logit_bias": {"x": 1}}, 400, "logit_bias: 'x' is no token's number"),
        ({"logit_bias": {"5": 101}}, 400, "logit_bias.5: input should be less than or equal to 100"),
        ({"seed": 2**64}, 400, "seed: input should be less than 18446744073709551616"),
        ({"best_of": 3}, 400, "best_of may only be as n: all answers are returned"),
        ({"suffix": "x"}, 400, "suffix is not supported"),
        ({"echo": True, "logprobs": 1}, 400, "echo and logprobs together are not supported"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options are for requests with stream set to true"),
    ],
)  # fmt: skip
def test_completions(server: TextServer, fields: dict[str, Any], status: int, told: str) -> None:
    answer = complete(server.port, **fields)
    assert answer.status == status
    assert told in answer.message


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"messages": []}, "messages: list should have at least 1 item"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "parts of the type 'text' only"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "refuses these messages: there is no role tool"),
        ({"messages": [{"content": "x"}]}, "messages.0.role: field required"),
        ({"tools": [{"type": "function"}]}, "tools: list should have at most 0 items"),
        ({"response_format": {"type": "json_object"}}, "response_format.type: input should be 'text'"),
        ({"top_logprobs": 2}, "top_logprobs are for requests with logprobs set to true"),
    ],
)  # fmt: skip
def test_chats(server: TextServer, fields: dict[str, Any], told: str) -> None:
    answer = ask(server.port, "/v1/chat/completions", {"model": NAME, "messages": HI, **fields})
    assert answer.status == 400
    assert told in answer.message


def test_fields_that_change_nothing(server: TextServer) -> None:
    more = {
        "user": "u",
        "store": True,
        "metadata": {"a": 1},
        "tools": [],
        "tool_choice": "none",
        "n": None,
        "stop": None,
    }
    fields = {"model": NAME, "messages": HI, "max_tokens": 3, "response_format": {"type": "text"}, **more}
    assert ask(server.port, "/v1/chat/completions", fields).status == 200


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "told"),
    [
        ("/v1/completions", b"{", {}, 400, "the request is not JSON"),
        ("/v1/completions", b"[]", {}, 400, "nput should be an object"),
        ("/v1/completions", b'{"a":' * 5000, {}, 400, "the request is not JSON"),
        ("/v1/completions", b"\xff", {}, 400, "the request is not JSON"),
        ("/v1/completions", b"{}", {"Content-Type": "text/plain"}, 415, "must be application/json"),
        ("/v1/completions", b'{"model": "a table", "prompt": "a", "min_p": NaN}', {}, 400, "min_p: input should be"),
        ("/v1/embeddings", b"{}", {}, 404, "there is no /v1/embeddings here"),
        ("/v1/completions", None, {}, 405, "/v1/completions takes POST, not GET"),
        ("/metrics", b"{}", {}, 405, "not POST"),
        ("/v1/models", None, {"Host": "evil.example:8000"}, 403, "must be for localhost, not for 'evil.example:8000'"),
    ],
)  # fmt: skip
def test_what_is_no_request(
    server: TextServer, path: str, body: bytes | None, headers: dict[str, str], status: int, told: str
) -> None:
    answer = ask(server.port, path, body, headers=headers)
    assert answer.status == status
    assert told in answer.message


@pytest.mark.parametrize("host", ["localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:8000", "127.9.9.9:80"])
def test_names_of_loopback(server: TextServer, host: str) -> None:
    assert ask(server.port, "/v1/models", headers={"Host": host}).status == 200


def test_a_request_too_long(server: TextServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(respond, "LARGEST_BODY_BYTES", 1000)
    answer = complete(server.port, prompt="x" * 1000)
    assert (answer.status, answer.message) == (413, "the request has more than 1000 bytes")


def test_a_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("correct-horse-battery\n")
    path.chmod(0o600)
    with serving(make_model(), token_file=path, host="0.0.0.0") as server:
        right = {"Authorization": "Bearer correct-horse-battery"}
        assert ask(server.port, "/v1/models", headers={**right, "Host": "any.example"}).status == 200
        for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic correct-horse-battery"}):
            for refused in ("/v1/models", "/metrics", "/v1/completions"):
                answer = ask(server.port, refused, headers=wrong)
                assert answer.status == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "asks for its token" in answer.message
        assert ask(server.port, "/healthz").status == 200


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        (None, 0, "cannot be read: No such file or directory"),
        ("", 0o600, "must hold one word of 16 ASCII characters or more"),
        ("too-short", 0o600, "must hold one word of 16 ASCII characters or more"),
        ("two words-of-some-length", 0o600, "must hold one word"),
        ("correct-horse-battery", 0o644, "is open to other users"),
    ],
)
def test_token_files(tmp_path: Path, text: str | None, mode: int, told: str) -> None:
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(InputError, match=told):
        load_token(path)


def test_places_where_it_cannot_listen(server: TextServer) -> None:
    model = make_model()
    with pytest.raises(InputError, match=r"0\.0\.0\.0 is not loopback: whoever reaches it could use the model"):
        TextServer(model, TOKENIZER, NAME, ServeOptions(host="0.0.0.0", port=0))
    with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{server.port}: Address already in use"):
        TextServer(model, TOKENIZER, NAME, ServeOptions(port=server.port))


class Failing(TableModel):
    """Fails after some tokens, as a device does that is lost, or as our own code may."""

    error: Exception = StageError("stage s2 on device pi failed")

    def row(self, tokens: Any) -> Any:
        if len(tokens) > 6:
            raise self.error
        return super().row(tokens)


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (StageError("stage s2 on device pi failed"), 503, "stage s2 on device pi failed"),
        (ZeroDivisionError("secret"), 500, "the server failed on this request; its log says why"),
    ],
)
def test_failures(error: Exception, status: int, told: str) -> None:
    """Before the first piece they are the status, and later the last event."""
    model = Failing(TOKENIZER.size, never=range(4))
    model.error = error
    with no_hang(), serving(model) as server:
        answer = complete(server.port, prompt=[5] * 9)
        assert (answer.status, answer.message) == (status, told)
        answer = complete(server.port, prompt=[5] * 9, stream=True)
        assert (answer.status, answer.message) == (status, told)
        answer = complete(server.port, prompt=[5], stream=True)
        assert answer.status == 200
        events = answer.body.decode().strip().split("\n\n")
        assert len(events) > 1
        assert Answer(0, {}, events[-1].removeprefix("data: ").encode()).message == told
        assert all("error" not in json.loads(event.removeprefix("data: ")) for event in events[:-1])
        counted = ask(server.port, "/metrics").body.decode()
        assert "tvmpipe_serve_failed_generations_total 3.0" in counted
