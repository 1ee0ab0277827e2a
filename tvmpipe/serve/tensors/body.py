"""Requests and answers over HTTP: JSON, and behind it the elements of those tensors that travel as bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tvmpipe.errors import SampleError
from tvmpipe.serve.tensors.datatypes import from_bytes, from_numbers, to_bytes
from tvmpipe.serve.tensors.model import VERSION, InferRequest, Named

HEADER_LENGTH = "inference-header-content-length"
"""The header that says how long the JSON is, where bytes follow it."""

_REFUSED = {
    "shared_memory_region": "shared memory",
    "classification": "classification",
    "sequence_id": "sequences",
}
"""What Triton's clients may ask for beyond the protocol, and this server does not do."""


class _Tensor(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class _Wanted(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    parameters: dict[str, Any] = {}


class InferBody(BaseModel):
    """The JSON of a request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = ""
    parameters: dict[str, Any] = {}
    inputs: list[_Tensor] = Field(min_length=1)
    outputs: list[_Wanted] = []

    def request(self, data: memoryview) -> InferRequest:
        """What it asks; `data` are the bytes behind the JSON. Raises SampleError."""
        arrays = {}
        for tensor in self.inputs:
            refuse(tensor.parameters)
            if tensor.name in arrays:
                raise SampleError(f"input {tensor.name!r} is there twice")
            size = tensor.parameters.get("binary_data_size")
            if size is None:
                if tensor.data is None:
                    raise SampleError(f"input {tensor.name!r} has neither data nor binary_data_size")
                arrays[tensor.name] = from_numbers(tensor.name, tensor.datatype, tensor.shape, tensor.data)
                continue
            if tensor.data is not None:
                raise SampleError(f"input {tensor.name!r} has both data and binary_data_size")
            if not isinstance(size, int) or not 0 <= size <= len(data):
                raise SampleError(f"input {tensor.name!r} has binary_data_size {size!r}; {len(data)} bytes are left")
            arrays[tensor.name] = from_bytes(tensor.name, tensor.datatype, tensor.shape, data[:size])
            data = data[size:]
        if data:
            raise SampleError(f"{len(data)} bytes behind the last input belong to none")
        refuse(self.parameters)
        for wanted in self.outputs:
            refuse(wanted.parameters)
        return InferRequest(arrays, [one.name for one in self.outputs], self.id, timeout_of(self.parameters))

    def binary(self, output: str) -> bool:
        """Whether an output is to come as bytes."""
        usual = bool(self.parameters.get("binary_data_output", False))
        given = [one.parameters.get("binary_data", usual) for one in self.outputs if one.name == output]
        return bool(given[0] if given else usual)


def timeout_of(parameters: Mapping[str, Any]) -> float | None:
    """Seconds that a request gives, which Triton's clients say in microseconds. Raises SampleError."""
    timeout_us = parameters.get("timeout", 0)
    if isinstance(timeout_us, bool) or not isinstance(timeout_us, int | float) or not 0 <= timeout_us < math.inf:
        raise SampleError(f"parameter timeout is {timeout_us!r}; it is a number of microseconds")
    return 1e-6 * timeout_us if timeout_us else None


def answer(model: str, request_id: str, outputs: Sequence[Named], body: InferBody) -> tuple[bytes, int | None]:
    """The body of an answer and, where bytes follow the JSON, how long that is."""
    described, raw = [], []
    for one in outputs:
        tensor: dict[str, Any] = {"name": one.name, "datatype": one.datatype, "shape": list(one.array.shape)}
        if body.binary(one.name) or one.datatype == "BF16":
            raw.append(to_bytes(one.array))
            tensor["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            tensor["data"] = one.array.reshape(-1).tolist()
        described.append(tensor)
    head: dict[str, Any] = {"model_name": model, "model_version": VERSION, "outputs": described}
    if request_id:
        head["id"] = request_id
    text = json.dumps(head).encode()
    return b"".join((text, *raw)), len(text) if raw else None


def refuse(parameters: Mapping[str, Any]) -> None:
    """Raise SampleError for what is not done here and would change the answer."""
    for name, what in _REFUSED.items():
        if parameters.get(name):
            raise SampleError(f"parameter {name}: {what} is not supported here")
