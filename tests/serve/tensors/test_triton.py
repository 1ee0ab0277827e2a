"""Triton's own client, over HTTP and gRPC, as programs use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.tensors.running import NAME
from tests.waiting import PATIENCE_S

PYTHON = os.environ.get("TVMPIPE_TRITON_PYTHON", sys.executable)
"""One that has tritonclient; its versions of other packages do not go with ours everywhere."""

_CLIENT = """
import json, sys
import numpy as np
from concurrent.futures import ThreadPoolExecutor
import tritonclient.{kind} as client
from tritonclient.utils import InferenceServerException

address, name = sys.argv[1:]
server = client.InferenceServerClient(address{more})
facts = {{"live": server.is_server_live(), "ready": server.is_server_ready(), "model": server.is_model_ready(name)}}
metadata = server.get_model_metadata(name{as_json})
facts["inputs"] = metadata["inputs"]

def ask(value, called="x", datatype="FP32", shape=(2, 3)):
    array = np.full(shape, value, np.float32 if datatype == "FP32" else np.int64)
    given = client.InferInput(called, list(shape), datatype)
    given.set_data_from_numpy(array)
    result = server.infer(name, [given], outputs=[client.InferRequestedOutput("y")], request_id=str(value))
    return result.as_numpy("y")

facts["right"] = all((ask(value) == value + 3).all() for value in range(20))
facts["errors"] = []
for wrong in (dict(called="z"), dict(datatype="INT64"), dict(shape=(3, 2))):
    try:
        ask(1.0, **wrong)
    except InferenceServerException as error:
        facts["errors"].append(error.message())
print(json.dumps(facts))
"""

_SERVER = """
import sys
from tests.serve.tensors.running import serving
from tvmpipe.serve.tensors.grpc_service import grpc_beside
import contextlib, threading

bound, there = [], threading.Event()

@contextlib.asynccontextmanager
async def beside(model, token):
    async with grpc_beside("127.0.0.1", 0, model, token) as port:
        bound.append(port)
        there.set()
        yield

with serving(beside=beside) as one:
    there.wait()
    print(one.port, bound[0], flush=True)
    sys.stdin.read()
"""

_HAS = subprocess.run([PYTHON, "-c", "import tritonclient.http, tritonclient.grpc"], capture_output=True, check=False)
pytestmark = pytest.mark.skipif(_HAS.returncode != 0, reason="tritonclient is not installed")


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_metadata_inference_and_errors(kind: str) -> None:
    code = _CLIENT.format(
        kind=kind, more=", concurrency=4" if kind == "http" else "", as_json=", as_json=True" if kind == "grpc" else ""
    )
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        ports = dict(zip(("http", "grpc"), server.stdout.readline().split(), strict=True))
        done = subprocess.run(
            [PYTHON, "-c", code, f"127.0.0.1:{ports[kind]}", NAME],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    finally:
        server.stdin.close()
        server.wait(PATIENCE_S)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["live"], facts["ready"], facts["model"], facts["right"]) == (True,) * 4
    assert [one["name"] for one in facts["inputs"]] == ["x"]
    assert facts["errors"] == [
        "input 'z' is not one of the model's; allowed: x",
        "input 'x' has dtype int64; the model takes float32",
        "input 'x' has shape [3, 2]; the model takes [2, 3]",
    ]
