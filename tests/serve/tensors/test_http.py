"""The Open Inference Protocol over HTTP: JSON, bytes, errors, many clients, the end."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tests.runtime.manifests import SHAPE
from tests.runtime.threads import add_one
from tests.serve.tensors.running import NAME, Serving, X, serving
from tests.serve.text.running import Answer, ask
from tests.waiting import PATIENCE_S, wait_until
from tvmpipe.errors import SampleError
from tvmpipe.serve.tensors.datatypes import DATATYPES, from_bytes, from_numbers, to_bytes

INFER = f"/v2/models/{NAME}/infer"
NUMBERS = [0.0, 1.0, 2.5, -1.0, 1e6, 3.0]
WANTED = [number + 3 for number in NUMBERS]


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving() as one:
        yield one


def infer(port: int, **fields: Any) -> Answer:
    """A request in JSON."""
    return ask(port, INFER, {"inputs": [{**X, "data": NUMBERS}], **fields})


def error_of(answer: Answer) -> str:
    """The one sentence of an error."""
    assert set(answer.json) == {"error"}
    message = answer.json["error"]
    assert isinstance(message, str)
    assert message
    assert "\n" not in message
    return message


def test_what_it_is(server: Serving) -> None:
    assert ask(server.port, "/v2").json["extensions"] == ["binary_tensor_data"]
    assert ask(server.port, "/v2/health/live").json == {"live": True}
    assert ask(server.port, "/v2/health/ready").json == {"ready": True}
    for path in (f"/v2/models/{NAME}", f"/v2/models/{NAME}/versions/1"):
        assert ask(server.port, path).json == {
            "name": NAME,
            "versions": ["1"],
            "platform": "tvmpipe_bundle",
            "inputs": [X],
            "outputs": [{**X, "name": "y"}],
        }
        assert ask(server.port, f"{path}/ready").json == {"name": NAME, "ready": True}


def test_numbers_in_and_out(server: Serving) -> None:
    answer = infer(server.port, id="first")
    assert answer.status == 200
    assert answer.json == {
        "model_name": NAME,
        "model_version": "1",
        "id": "first",
        "outputs": [{**X, "name": "y", "data": WANTED}],
    }
    nested = infer(server.port, inputs=[{**X, "data": [NUMBERS[:3], NUMBERS[3:]]}], outputs=[{"name": "y"}])
    assert nested.json["outputs"][0]["data"] == WANTED


@pytest.mark.parametrize("asked", [{"parameters": {"binary_data_output": True}}, {"outputs": None}])
def test_bytes_in_and_out(server: Serving, asked: dict[str, Any]) -> None:
    data = np.array(NUMBERS, "<f4").tobytes()
    if "outputs" in asked:
        asked = {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    head = json.dumps({"inputs": [{**X, "parameters": {"binary_data_size": len(data)}}], **asked}).encode()
    answer = ask(server.port, INFER, head + data, headers={"Inference-Header-Content-Length": str(len(head))})
    assert answer.status == 200
    length = int(answer.headers["inference-header-content-length"])
    assert json.loads(answer.body[:length])["outputs"] == [
        {**X, "name": "y", "parameters": {"binary_data_size": len(data)}}
    ]
    assert np.frombuffer(answer.body[length:], "<f4").tolist() == WANTED


@pytest.mark.parametrize(
    ("fields", "status", "sentence"),
    [
        ({"inputs": [{**X, "name": "z", "data": NUMBERS}]}, 400, "input 'z' is not one of the model's; allowed: x"),
        ({"inputs": [{**X, "data": NUMBERS[:5]}]}, 400, "input 'x' has 5 elements; shape [2, 3] has 6"),
        (
            {"inputs": [{**X, "shape": [3, 2], "data": NUMBERS}]},
            400,
            "input 'x' has shape [3, 2]; the model takes [2, 3]",
        ),
        (
            {"inputs": [{**X, "datatype": "INT64", "data": [1] * 6}]},
            400,
            "input 'x' has dtype int64; the model takes float32",
        ),
        ({"inputs": [{**X, "datatype": "BYTES", "data": ["a"] * 6}]}, 400, "input 'x' has datatype 'BYTES'; allowed: "),
        ({"inputs": [{**X, "data": ["a"] * 6}]}, 400, "the data of input 'x' are no numbers of FP32"),
        ({"inputs": [{**X, "data": [[1, 2], [3]]}]}, 400, "the data of input 'x' are no numbers of FP32"),
        ({"inputs": [X]}, 400, "input 'x' has neither data nor binary_data_size"),
        (
            {"inputs": [{**X, "parameters": {"binary_data_size": 24}}]},
            400,
            "input 'x' has binary_data_size 24; 0 bytes are left",
        ),
        ({"inputs": []}, 400, "inputs: list should have at least 1 item after validation, not 0"),
        ({"outputs": [{"name": "q"}]}, 400, "output 'q' is not one of the model's; allowed: y"),
        (
            {"outputs": [{"name": "y", "parameters": {"classification": 3}}]},
            400,
            "parameter classification: classification is not supported here",
        ),
        ({"parameters": {"timeout": "soon"}}, 400, "parameter timeout is 'soon'; it is a number of microseconds"),
        ({"batch": 3}, 400, "there is no parameter 'batch'"),
    ],
)
def test_what_is_wrong_is_one_sentence(server: Serving, fields: dict[str, Any], status: int, sentence: str) -> None:
    answer = infer(server.port, **fields)
    assert answer.status == status
    assert error_of(answer).startswith(sentence)


def test_other_models_and_paths(server: Serving) -> None:
    other = ask(server.port, "/v2/models/four/infer", {"inputs": []})
    assert (other.status, error_of(other)) == (404, "there is no model 'four' here; there is 'three'")
    version = ask(server.port, f"/v2/models/{NAME}/versions/2")
    assert (version.status, error_of(version)) == (404, "model 'three' has no version '2'; it has '1'")
    assert ask(server.port, "/v2/models").status == 404
    assert ask(server.port, INFER).status == 405
    assert ask(server.port, INFER, b"{").status == 400
    assert ask(server.port, INFER, bytes(2 << 20)).status == 413
    wrong = ask(server.port, INFER, b"{}", headers={"Inference-Header-Content-Length": "7"})
    assert error_of(wrong) == "inference-header-content-length is '7'; the request has 2 bytes"


def test_many_clients_each_get_their_own(server: Serving) -> None:
    def one(number: int) -> bool:
        data = [float(number)] * 6
        answer = infer(server.port, inputs=[{**X, "data": data}], id=str(number))
        return bool(answer.json["id"] == str(number) and answer.json["outputs"][0]["data"] == [number + 3.0] * 6)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(400)))
    text = ask(server.port, "/metrics").body.decode()
    assert 'tvmpipe_serve_requests_total{route="/v2/models/{name}/infer",status="200"}' in text


class Held:
    """What a device does until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.there = 0

    def __call__(self, stage: str, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        self.there += 1
        self.go.wait(PATIENCE_S)
        return add_one(stage, inputs)


def test_when_too_many_wait() -> None:
    held = Held()
    with serving(inflight=2, queue=1, compute=held) as one, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(infer, one.port) for _ in range(3)]
        wait_until(lambda: one.server.model.waiting == 1)
        refused = infer(one.port)
        assert refused.status == 429
        assert refused.headers["retry-after"] == "1"
        assert error_of(refused) == "1 requests wait already, as many as may (--queue)"
        held.go.set()
        assert [answer.result(PATIENCE_S).status for answer in answers] == [200] * 3


def test_a_request_says_how_long_it_waits() -> None:
    held = Held()
    with serving(inflight=1, compute=held) as one:
        late = infer(one.port, parameters={"timeout": 50_000})
        assert (late.status, error_of(late)) == (504, "no answer within the 0.05 s that the request gave")
        held.go.set()
        assert infer(one.port).status == 200


def test_who_hangs_up_gives_up_the_place() -> None:
    held = Held()
    with serving(inflight=1, queue=1, compute=held) as one, ThreadPoolExecutor(1) as pool:
        first = pool.submit(infer, one.port)
        wait_until(lambda: held.there == 1)
        connection = http.client.HTTPConnection("127.0.0.1", one.port)
        connection.request("POST", INFER, json.dumps({"inputs": [{**X, "data": NUMBERS}]}))
        wait_until(lambda: one.server.model.waiting == 1)
        connection.close()
        wait_until(lambda: one.server.model.waiting == 0)
        held.go.set()
        assert first.result(PATIENCE_S).status == 200
        assert held.there == 1


def test_at_the_end_what_runs_is_answered() -> None:
    held = Held()
    with serving(inflight=2, compute=held) as one, ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(infer, one.port) for _ in range(2)]
        wait_until(lambda: held.there >= 1)
        one.server.stop()
        time.sleep(0.2)
        assert not one.stopped.is_set()
        held.go.set()
        assert [answer.result(PATIENCE_S).status for answer in answers] == [200, 200]
        assert one.stopped.wait(PATIENCE_S)


def test_at_the_end_what_takes_too_long_is_told_so() -> None:
    held = Held()
    with serving(inflight=2, compute=held, drain_s=0.2) as one, ThreadPoolExecutor(4) as pool:
        answer = pool.submit(infer, one.port)
        wait_until(lambda: held.there == 1)
        one.server.stop()
        told = answer.result(PATIENCE_S)
        assert (told.status, error_of(told)) == (503, "the server is stopping")
        held.go.set()


def test_a_stage_that_raises_and_devices_that_are_lost() -> None:
    def raising(stage: str, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        if inputs[0][0, 0] == 8.0:
            raise RuntimeError("seven is not for me")
        return add_one(stage, inputs)

    with serving(compute=raising) as one:
        bad = infer(one.port, inputs=[{**X, "data": [7.0] * 6}])
        assert bad.status == 500
        assert "seven is not for me" in error_of(bad)
        assert infer(one.port).status == 200
        one.threads.devices["b"].die()
        lost = infer(one.port)
        assert lost.status == 503
        assert "device b" in error_of(lost)
        ready = ask(one.port, "/v2/health/ready")
        assert (ready.status, ready.json) == (503, {"ready": False})


def test_off_loopback_with_a_token_alone(tmp_path: Any) -> None:
    token = tmp_path / "token"
    token.write_text("a" * 32)
    token.chmod(0o600)
    with serving(token_file=token) as one:
        assert infer(one.port).status == 401
        assert ask(one.port, "/v2/health/ready").status == 200
        headers = {"Authorization": "Bearer " + "a" * 32}
        assert ask(one.port, INFER, {"inputs": [{**X, "data": NUMBERS}]}, headers=headers).status == 200


NUMPY = [np.dtype(name) for name in DATATYPES if name != "bfloat16"]


@given(st.sampled_from(NUMPY).flatmap(lambda one: hnp.arrays(one, hnp.array_shapes(min_dims=0, min_side=0))))
@example(np.array([1 << 63, 0], np.uint64))
@settings(deadline=None)
def test_every_type_there_and_back(array: NDArray[Any]) -> None:
    datatype = DATATYPES[array.dtype.name]
    assert np.array_equal(
        from_bytes("x", datatype, array.shape, to_bytes(array)), array, equal_nan=array.dtype.kind == "f"
    )
    numbers = json.loads(json.dumps(array.reshape(-1).tolist()))
    again = from_numbers("x", datatype, array.shape, numbers)
    assert again.dtype == array.dtype
    assert np.array_equal(again, array, equal_nan=array.dtype.kind == "f")


def test_bfloat16_is_two_bytes() -> None:
    given = from_bytes("x", "BF16", [2], bytes.fromhex("803fc0bf"))
    assert given.astype("float32").tolist() == [1.0, -1.5]


@pytest.mark.parametrize(("datatype", "data"), [("UINT8", [256]), ("INT8", [1.5]), ("BOOL", [1]), ("INT64", [1 << 70])])
def test_numbers_that_do_not_fit(datatype: str, data: list[Any]) -> None:
    with pytest.raises(SampleError, match=f"{datatype}$"):
        from_numbers("x", datatype, [1], data)


def test_shapes_are_taken_as_they_are() -> None:
    with pytest.raises(SampleError, match="with an extent below 0"):
        from_bytes("x", "FP32", [-1, 6], bytes(24))
    assert from_bytes("x", "FP32", SHAPE, bytes(24)).shape == SHAPE
