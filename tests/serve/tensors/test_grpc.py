"""The Open Inference Protocol over gRPC, with messages made from the same file by protoc's rules."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.manifests import SHAPE
from tests.runtime.threads import thread_pipeline
from tests.serve.tensors.running import MANIFEST, NAME, Serving, X, serving
from tests.waiting import PATIENCE_S
from tvmpipe.errors import InputError
from tvmpipe.runtime.head.settings import Settings
from tvmpipe.serve.server import ServeOptions
from tvmpipe.serve.tensors.model import TensorModel
from tvmpipe.serve.tensors.server import TensorServer

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")

from tvmpipe.serve.tensors.grpc_service import MESSAGES, SERVICE, grpc_beside  # noqa: E402

NUMBERS = [0.0, 1.0, 2.5, -1.0, 1e6, 3.0]
WANTED = [number + 3 for number in NUMBERS]


class Client:
    """Calls a server's methods by name."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def call(self, method: str, metadata: Any = None, timeout: float = PATIENCE_S, **fields: Any) -> Any:
        stub = self._channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=MESSAGES[f"{method}Request"].SerializeToString,
            response_deserializer=MESSAGES[f"{method}Response"].FromString,
        )
        return stub(MESSAGES[f"{method}Request"](**fields), timeout=timeout, metadata=metadata)

    def refused(self, method: str, **fields: Any) -> tuple[str, str]:
        """The code and the sentence of an error."""
        with pytest.raises(grpc.RpcError) as caught:
            self.call(method, **fields)
        error: Any = caught.value
        return error.code().name, error.details()


@contextlib.contextmanager
def connected(**options: Any) -> Iterator[tuple[Client, Serving]]:
    """A server with a gRPC port, and a client."""
    bound: list[int] = []
    there = threading.Event()

    @contextlib.asynccontextmanager
    async def beside(model: TensorModel, token: str | None) -> Any:
        async with grpc_beside("127.0.0.1", 0, model, token) as port:
            bound.append(port)
            there.set()
            yield

    with serving(beside=beside, **options) as one:
        assert there.wait(PATIENCE_S)
        with grpc.insecure_channel(f"127.0.0.1:{bound[0]}") as channel:
            yield Client(channel), one


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with connected() as (one, _):
        yield one


def test_what_it_is(client: Client) -> None:
    assert client.call("ServerLive").live
    assert client.call("ServerReady").ready
    assert client.call("ModelReady", name=NAME, version="1").ready
    assert client.call("ServerMetadata").name == "tvmpipe"
    told = client.call("ModelMetadata", name=NAME)
    assert (told.name, list(told.versions), told.platform) == (NAME, ["1"], "tvmpipe_bundle")
    assert [(one.name, one.datatype, list(one.shape)) for one in (*told.inputs, *told.outputs)] == [
        ("x", "FP32", list(SHAPE)),
        ("y", "FP32", list(SHAPE)),
    ]


@pytest.mark.parametrize("raw", [True, False])
def test_numbers_in_and_out(client: Client, raw: bool) -> None:
    fields: dict[str, Any] = {"inputs": [{**X, **({} if raw else {"contents": {"fp32_contents": NUMBERS}})}]}
    if raw:
        fields["raw_input_contents"] = [np.array(NUMBERS, "<f4").tobytes()]
    answer = client.call("ModelInfer", model_name=NAME, id="7", **fields)
    assert (answer.model_name, answer.model_version, answer.id) == (NAME, "1", "7")
    assert [(one.name, one.datatype, list(one.shape)) for one in answer.outputs] == [("y", "FP32", list(SHAPE))]
    assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == WANTED


@pytest.mark.parametrize(
    ("fields", "code", "sentence"),
    [
        ({"model_name": "four"}, "NOT_FOUND", "there is no model 'four' here; there is 'three'"),
        ({"inputs": [X]}, "INVALID_ARGUMENT", "input 'x' has 0 elements; shape [2, 3] has 6"),
        (
            {"inputs": [X], "raw_input_contents": [bytes(23)]},
            "INVALID_ARGUMENT",
            "input 'x' has 23 bytes; FP32 of shape [2, 3] has 24",
        ),
        (
            {"inputs": [X], "raw_input_contents": [bytes(24)] * 2},
            "INVALID_ARGUMENT",
            "there are 2 raw contents for 1 inputs",
        ),
        ({"inputs": []}, "INVALID_ARGUMENT", "input 'x' is missing; the model takes x"),
        (
            {"inputs": [{**X, "datatype": "FP16"}]},
            "INVALID_ARGUMENT",
            "input 'x': 'FP16' has to be in raw_input_contents",
        ),
        (
            {"outputs": [{"name": "q"}], "inputs": [X], "raw_input_contents": [bytes(24)]},
            "INVALID_ARGUMENT",
            "output 'q' is not one of the model's; allowed: y",
        ),
        (
            {"inputs": [{**X, "parameters": {"shared_memory_region": {"string_param": "r"}}}]},
            "INVALID_ARGUMENT",
            "parameter shared_memory_region: shared memory is not supported here",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(client: Client, fields: dict[str, Any], code: str, sentence: str) -> None:
    assert client.refused("ModelInfer", **{"model_name": NAME, **fields}) == (code, sentence)


def test_deadlines() -> None:
    go = threading.Event()

    def held(stage: str, inputs: Any) -> Any:
        go.wait(PATIENCE_S)
        return [inputs[0] + 1]

    with connected(compute=held, inflight=1) as (client, _):
        fields: dict[str, Any] = {"model_name": NAME, "inputs": [X], "raw_input_contents": [bytes(24)]}
        assert client.refused("ModelInfer", timeout=0.2, **fields)[0] == "DEADLINE_EXCEEDED"
        late = client.refused("ModelInfer", parameters={"timeout": {"int64_param": 50_000}}, **fields)
        assert late == ("DEADLINE_EXCEEDED", "no answer within the 0.05 s that the request gave")
        go.set()
        assert client.call("ModelInfer", **fields).outputs[0].name == "y"


def test_the_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a" * 32)
    token.chmod(0o600)
    with connected(token_file=token) as (client, _):
        assert client.call("ServerReady").ready
        assert client.refused("ModelMetadata", name=NAME)[0] == "UNAUTHENTICATED"
        sent = (("authorization", "Bearer " + "a" * 32),)
        assert client.call("ModelMetadata", metadata=sent, name=NAME).name == NAME


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, thread_pipeline(MANIFEST, Settings(), 4) as threads:
        beside = functools.partial(grpc_beside, "127.0.0.1", taken.getsockname()[1])
        server = TensorServer(threads.pipe, NAME, ServeOptions(port=0), beside)
        with pytest.raises(InputError, match="for gRPC: the port is taken"):
            server.run()


def test_the_compiled_file_is_that_of_the_source(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
    folder = Path(__file__).parents[3] / "tvmpipe" / "serve" / "tensors"
    made = tmp_path / "made.binpb"
    assert protoc.main(["", f"-I{folder}", f"--descriptor_set_out={made}", "inference.proto"]) == 0
    assert made.read_bytes() == (folder / "inference.binpb").read_bytes()
