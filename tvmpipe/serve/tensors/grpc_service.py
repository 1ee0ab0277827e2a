"""The protocol over gRPC, with the messages of `inference.proto`."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib import resources
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tvmpipe.errors import InputError, SampleError
from tvmpipe.runtime.transport.address import format_address, listening_host
from tvmpipe.runtime.transport.versions import own_versions
from tvmpipe.serve.tensors.body import refuse, timeout_of
from tvmpipe.serve.tensors.datatypes import from_bytes, from_numbers, to_bytes
from tvmpipe.serve.tensors.errors import told
from tvmpipe.serve.tensors.model import PLATFORM, VERSION, InferRequest, TensorModel

SERVICE = "inference.GRPCInferenceService"
_OTHER_BYTES = 1 << 20
_ELEMENT_BYTES = 11  # an integer that is not raw may take so many
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
"""Where numbers that are not raw lie; FP16 and BF16 are always raw."""

Method = Callable[[TensorModel, Any, Any], Awaitable[Any]]


def _messages() -> Mapping[str, Any]:
    """Message classes by name, in a pool of their own: a client's in the same process may have the same names."""
    files = descriptor_pb2.FileDescriptorSet.FromString(
        resources.files("tvmpipe.serve.tensors").joinpath("inference.binpb").read_bytes()
    )
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    names = [message.name for file in files.file for message in file.message_type]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}")) for name in names}


MESSAGES = _messages()


@contextlib.asynccontextmanager
async def grpc_beside(host: str, port: int, model: TensorModel, token: str | None) -> AsyncIterator[int]:
    """Serve a model at a port, 0 for any that is free, which is returned. Raises InputError."""
    sizes = [spec.size_bytes for spec in (*model.manifest.sample_inputs, *model.manifest.model.outputs)]
    most = _OTHER_BYTES + _ELEMENT_BYTES * sum(sizes)
    options = [("grpc.max_receive_message_length", most), ("grpc.max_send_message_length", most)]
    server = grpc.aio.server(options=options)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _answering(model, token, method, guarded=name not in ("ServerLive", "ServerReady")),
            request_deserializer=MESSAGES[f"{name}Request"].FromString,
            response_serializer=MESSAGES[f"{name}Response"].SerializeToString,
        )
        for name, method in _METHODS.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    address = format_address(listening_host(host), port)
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError:
        bound = 0
    if not bound:
        raise InputError(f"cannot listen on {address} for gRPC: the port is taken, or no address of this machine")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(grace=None)


def _answering(model: TensorModel, token: str | None, method: Method, *, guarded: bool) -> Callable[..., Any]:
    """A method that checks the token, and whose errors are a code and a sentence."""

    async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        if guarded and token is not None:
            given = dict(context.invocation_metadata() or ()).get("authorization", "")
            if not hmac.compare_digest(str(given).encode(), f"Bearer {token}".encode()):
                await context.abort(_CODES[401], "this server asks for its token, as `authorization: Bearer TOKEN`")
        try:
            return await method(model, request, context)
        except Exception as error:  # noqa: BLE001  # whatever it is, the client hears of it
            one = told(error)
            await context.abort(_CODES.get(one.status, grpc.StatusCode.UNKNOWN), str(one))

    return answer


async def _live(_: TensorModel, __: Any, ___: Any) -> Any:
    return MESSAGES["ServerLiveResponse"](live=True)


async def _ready(model: TensorModel, _: Any, __: Any) -> Any:
    return MESSAGES["ServerReadyResponse"](ready=model.ready)


async def _model_ready(model: TensorModel, request: Any, _: Any) -> Any:
    model.check(request.name, request.version)
    return MESSAGES["ModelReadyResponse"](ready=model.ready)


async def _server(_: TensorModel, __: Any, ___: Any) -> Any:
    return MESSAGES["ServerMetadataResponse"](name="tvmpipe", version=own_versions()["tvmpipe"])


async def _model(model: TensorModel, request: Any, _: Any) -> Any:
    model.check(request.name, request.version)
    return MESSAGES["ModelMetadataResponse"](
        name=model.name, versions=[VERSION], platform=PLATFORM, inputs=model.inputs, outputs=model.outputs
    )


async def _infer(model: TensorModel, request: Any, context: Any) -> Any:
    model.check(request.model_name, request.model_version)
    parameters = _parameters(request.parameters)
    refuse(parameters)
    for wanted in request.outputs:
        refuse(_parameters(wanted.parameters))
    left_s = context.time_remaining()
    given_s = timeout_of(parameters)
    limits = [one for one in (left_s, given_s) if one is not None]
    asked = InferRequest(
        _inputs(request), [one.name for one in request.outputs], request.id, min(limits) if limits else None
    )
    outputs = await model.infer(asked)
    return MESSAGES["ModelInferResponse"](
        model_name=model.name,
        model_version=VERSION,
        id=request.id,
        outputs=[{"name": one.name, "datatype": one.datatype, "shape": one.array.shape} for one in outputs],
        raw_output_contents=[to_bytes(one.array) for one in outputs],
    )


def _inputs(request: Any) -> dict[str, Any]:
    """The arrays of a request. Raises SampleError."""
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise SampleError(f"there are {len(raw)} raw contents for {len(request.inputs)} inputs")
    arrays: dict[str, Any] = {}
    for place, tensor in enumerate(request.inputs):
        refuse(_parameters(tensor.parameters))
        if tensor.name in arrays:
            raise SampleError(f"input {tensor.name!r} is there twice")
        if raw:
            arrays[tensor.name] = from_bytes(tensor.name, tensor.datatype, tensor.shape, raw[place])
            continue
        if tensor.datatype not in _CONTENTS:
            raise SampleError(f"input {tensor.name!r}: {tensor.datatype!r} has to be in raw_input_contents")
        numbers = list(getattr(tensor.contents, _CONTENTS[tensor.datatype]))
        arrays[tensor.name] = from_numbers(tensor.name, tensor.datatype, tensor.shape, numbers)
    return arrays


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as plain values."""
    found = {}
    for name, one in given.items():
        kind = one.WhichOneof("parameter_choice")
        found[name] = None if kind is None else getattr(one, kind)
    return found


_METHODS: dict[str, Method] = {
    "ServerLive": _live,
    "ServerReady": _ready,
    "ModelReady": _model_ready,
    "ServerMetadata": _server,
    "ModelMetadata": _model,
    "ModelInfer": _infer,
}
