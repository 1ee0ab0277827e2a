"""Many clients: each gets its text or a status, who leaves frees its sequence, and the end waits for the rest."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.text.running import NAME, TOKENIZER, ask, complete, make_model, serving, settled, text_of
from tests.waiting import PATIENCE_S, no_hang, wait_until
from tvmpipe.serve import connections


def test_sixteen_clients_stream_and_some_leave() -> None:
    """Every fourth text is left after some pieces. What is not left is right, and no sequence stays open."""
    model = make_model(sequences=16, delay_s=0.001)
    expected = {text: text_of(model, TOKENIZER.encode(text), max_tokens=24) for text in map(str, range(48))}

    async def client(number: int, port: int) -> int:
        left = 0
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as one:
            for turn in range(3):
                text = str(16 * turn + number)
                stream = await one.completions.create(
                    model=NAME, prompt=text, temperature=0, max_tokens=24, stream=True
                )
                found, leaves = "", (number + turn) % 4 == 0
                async for chunk in stream:
                    found += chunk.choices[0].text
                    if leaves and len(found) > 3:
                        break
                await stream.close()
                assert expected[text].startswith(found)
                assert leaves or found == expected[text]
                left += leaves
        return left

    async def all_of_them(port: int) -> int:
        return sum(await asyncio.gather(*(client(number, port) for number in range(16))))

    with no_hang(), serving(model) as server:
        left = asyncio.run(all_of_them(server.port))
        assert left == 12
        settled(model)
        wait_until(lambda: server.engine.running == server.engine.waiting == 0)
        assert model.opened == 48 + len(expected)
        # All can be open again.
        again = asyncio.run(all_of_them(server.port))
        assert again == left


def test_two_hundred_requests_at_once() -> None:
    """Each is answered rightly, or refused with 429 while there is no place for it."""
    model = make_model(sequences=4)
    expected = text_of(model, TOKENIZER.encode("The"), max_tokens=8)
    model.gate.clear()

    with no_hang(), serving(model, queue=12) as server:
        answers = []

        def several() -> None:
            for _ in range(5):
                answers.append(complete(server.port, max_tokens=8))

        threads = [threading.Thread(target=several) for _ in range(40)]
        for thread in threads:
            thread.start()
        # 16 have a place, and stay; all others are refused.
        wait_until(lambda: len(answers) == 24 * 5, lambda: f"{len(answers)} are answered")
        model.gate.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert Counter(answer.status for answer in answers) == {200: 16 * 5, 429: 24 * 5}
        for answer in answers:
            if answer.status == 200:
                assert answer.json["choices"][0]["text"] == expected
            else:
                assert 1 <= int(answer.headers["retry-after"]) <= 60
                assert answer.json["error"]["code"] == "rate_limit_exceeded"
                assert "4 generations run and 12 wait, and there is no place for 1 more" in answer.message
        assert model.most == 4
        settled(model)


def test_metrics_and_health() -> None:
    model = make_model()
    with serving(model, draft=2) as server:
        assert ask(server.port, "/healthz").json == {"status": "ok", "running": 0, "waiting": 0}
        for _ in range(2):
            complete(server.port, prompt=[5] * 7, max_tokens=6)
        complete(server.port, n=0)
        ask(server.port, "/etc/passwd")
        answer = ask(server.port, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    samples = {
        (one.name, *one.labels.values()): one.value
        for family in text_string_to_metric_families(answer.body.decode())
        for one in family.samples
    }
    assert samples["tvmpipe_serve_requests_total", "/v1/completions", "200"] == 2
    assert samples["tvmpipe_serve_requests_total", "/v1/completions", "400"] == 1
    assert samples["tvmpipe_serve_requests_total", "other", "404"] == 1
    assert samples["tvmpipe_serve_prompt_tokens_total",] == 14
    assert samples["tvmpipe_serve_generated_tokens_total",] == 12
    assert samples["tvmpipe_serve_generations_total", "length"] == 2
    assert samples["tvmpipe_serve_first_token_seconds_count",] == 2
    assert samples["tvmpipe_serve_sequences",] == 4
    assert samples["tvmpipe_serve_sequences_open",] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_who_waits_and_leaves_gives_up_the_place(stream: bool) -> None:
    """Also before there was anything to send."""
    model = make_model(sequences=1)
    model.gate.clear()
    with no_hang(), serving(model, queue=1) as server:
        leave = []
        for waiting in (0, 1):
            leave.append(leaving(server.port, stream))
            wait_until(lambda wanted=waiting: (server.engine.running, server.engine.waiting) == (1, wanted))  # type: ignore[misc]
        assert complete(server.port).status == 429
        for one in reversed(leave):
            one()
        wait_until(lambda: "tvmpipe_serve_disconnects_total 2.0" in ask(server.port, "/metrics").body.decode())
        assert server.engine.waiting == 0
        model.gate.set()
        settled(model)
        assert model.fed == 256  # of a prompt of 400 tokens, what was under way
        assert model.opened == 1  # who waited never had a sequence
        assert complete(server.port, max_tokens=2).status == 200


def leaving(port: int, stream: bool) -> Callable[[], None]:
    """Ask for much; the function hangs up."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    body = json.dumps({"model": NAME, "prompt": [5] * 400, "max_tokens": 100, "stream": stream}).encode()
    head = ["POST /v1/completions HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    connection.sendall("\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body)
    return connection.close


def test_who_does_not_ask_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a request, in its head, in its body, and in the head of the next."""
    monkeypatch.setattr(connections, "REQUEST_S", 0.3)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    health = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with no_hang(), serving(make_model()) as server:
        for first, then in ((b"", b""), (b"", head), (b"", head + b"Content-Length: 99\r\n\r\n{"), (health, head)):
            with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
                if first:
                    connection.sendall(first)
                    assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
                connection.sendall(then)
                assert b"HTTP/1.1" not in b"".join(iter(lambda: connection.recv(1 << 16), b""))
        # An answer may take longer than that.
        server.engine.model.delay_s = 0.1  # type: ignore[attr-defined]
        assert complete(server.port, prompt=[5] * 6, max_tokens=2).status == 200


def test_connections_beyond_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvmpipe.serve.server._OTHER_CONNECTIONS", 0)
    with serving(make_model(sequences=1), queue=1) as server, contextlib.ExitStack() as idle:
        for _ in range(3):
            idle.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S))
        wait_until(lambda: ask(server.port, "/healthz").status == 503)
        idle.close()
        wait_until(lambda: ask(server.port, "/healthz").status == 200)


SERVER = """
import sys
from tests.serve.text.running import NAME, TOKENIZER, make_model
from tvmpipe.serve.server import ServeOptions
from tvmpipe.serve.text.server import TextServer
model = make_model(sequences=1, delay_s=0.03)
server = TextServer(model, TOKENIZER, NAME, ServeOptions(port=0, drain_s=float(sys.argv[1])))
print(server.port, flush=True)
server.run()
assert model.open == 0
print("ended", model.opened, flush=True)
"""


@pytest.mark.parametrize(("drain_s", "tokens"), [(30, 50), (0, 400)])
def test_sigterm_answers_what_is_there(drain_s: int, tokens: int) -> None:
    """One streams and one waits: both get their texts, the process ends by itself, and nobody else gets in.

    Without time for that both are told, and the process ends, too.
    """
    command = [sys.executable, "-c", SERVER, str(drain_s)]
    with no_hang(), subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            answers = {}

            def stream() -> None:
                answers["stream"] = complete(port, max_tokens=tokens, stream=True)

            def wait() -> None:
                answers["wait"] = complete(port, max_tokens=5)

            threads = [threading.Thread(target=one) for one in (stream, wait)]
            for number, thread in enumerate(threads):
                thread.start()
                wait_until(lambda wanted=number: answers or ask(port, "/healthz").json["waiting"] == wanted)  # type: ignore[misc]
                wait_until(lambda: ask(port, "/healthz").json["running"] == 1)
            process.send_signal(signal.SIGTERM)
            for thread in threads:
                thread.join(PATIENCE_S)
            assert process.wait(PATIENCE_S) == 0
            events = answers["stream"].body.decode().strip().split("\n\n")
            if drain_s:
                model = make_model()
                prompt = TOKENIZER.encode("The")
                assert events.pop() == "data: [DONE]"
                texts = [json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events]
                assert "".join(texts) == text_of(model, prompt, max_tokens=tokens)
                assert answers["wait"].json["choices"][0]["text"] == text_of(model, prompt, max_tokens=5)
                assert process.stdout.read() == "ended 2\n"
            else:
                assert "the server is stopping" in events[-1]
                assert (answers["wait"].status, answers["wait"].message) == (503, "the server is stopping")
                assert process.stdout.read() == "ended 1\n"
            with pytest.raises(ConnectionRefusedError):
                ask(port, "/healthz")
        finally:
            process.kill()
