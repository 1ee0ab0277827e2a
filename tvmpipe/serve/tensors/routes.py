"""The protocol over HTTP: `/v2` and what lies below it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tvmpipe.runtime.transport.versions import own_versions
from tvmpipe.serve.disconnect import DisconnectedError, while_connected
from tvmpipe.serve.errors import RequestError
from tvmpipe.serve.tensors.body import HEADER_LENGTH, InferBody, answer
from tvmpipe.serve.tensors.errors import error_response
from tvmpipe.serve.tensors.model import PLATFORM, VERSION, TensorModel

EXTENSIONS = ("binary_tensor_data",)
_JSON_BYTES = 32  # an element of a tensor as JSON has it, with room for blanks
_OTHER_BYTES = 1 << 20
_GONE = 499  # nobody receives it

Handler = Callable[[Request, TensorModel], Awaitable[Response]]


def routes(model: TensorModel) -> list[BaseRoute]:
    """All of them."""
    found: list[BaseRoute] = [
        Route("/v2", _answering(model, _server), methods=["GET"]),
        Route("/v2/health/live", _answering(model, _live), methods=["GET"]),
        Route("/v2/health/ready", _answering(model, _ready), methods=["GET"]),
    ]
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        found += [
            Route(path, _answering(model, _model), methods=["GET"]),
            Route(f"{path}/ready", _answering(model, _model_ready), methods=["GET"]),
            Route(f"{path}/infer", _answering(model, _infer), methods=["POST"]),
        ]
    return found


def _answering(model: TensorModel, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A handler whose errors are answers."""

    async def answering(request: Request) -> Response:
        try:
            return await handler(request, model)
        except (ClientDisconnect, DisconnectedError):
            model.metrics.count_disconnect()
            return Response(status_code=_GONE)
        except Exception as error:  # noqa: BLE001  # whatever it is, the client hears of it
            return error_response(error)

    return answering


async def _server(_: Request, __: TensorModel) -> Response:
    return JSONResponse({"name": "tvmpipe", "version": own_versions()["tvmpipe"], "extensions": list(EXTENSIONS)})


async def _live(_: Request, __: TensorModel) -> Response:
    return JSONResponse({"live": True})


async def _ready(_: Request, model: TensorModel) -> Response:
    return JSONResponse({"ready": model.ready}, 200 if model.ready else 503)


async def _model(request: Request, model: TensorModel) -> Response:
    _check(request, model)
    facts = {"name": model.name, "versions": [VERSION], "platform": PLATFORM}
    return JSONResponse({**facts, "inputs": model.inputs, "outputs": model.outputs})


async def _model_ready(request: Request, model: TensorModel) -> Response:
    _check(request, model)
    return JSONResponse({"name": model.name, "ready": model.ready}, 200 if model.ready else 503)


async def _infer(request: Request, model: TensorModel) -> Response:
    _check(request, model)
    text, data = await _read(request, model)
    body = InferBody.model_validate_json(text)
    asked = body.request(data)
    outputs = await while_connected(request.receive, model.infer(asked))
    content, head = answer(model.name, asked.id, outputs, body)
    if head is None:
        return Response(content, media_type="application/json")
    return Response(content, media_type="application/octet-stream", headers={HEADER_LENGTH: str(head)})


def _check(request: Request, model: TensorModel) -> None:
    model.check(request.path_params["name"], request.path_params.get("version", ""))


async def _read(request: Request, model: TensorModel) -> tuple[bytes, memoryview]:
    """The JSON of a request, and what follows it. Raises RequestError for more than the model's inputs can be."""
    most = _OTHER_BYTES + sum(_JSON_BYTES * spec.size_bytes for spec in model.manifest.sample_inputs)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise RequestError(413, f"the request has more than {most} bytes, which no request for this model needs")
        parts.append(part)
    whole = memoryview(b"".join(parts))
    given = request.headers.get(HEADER_LENGTH)
    if given is None:
        return bytes(whole), memoryview(b"")
    if not given.isdecimal() or int(given) > size:
        raise RequestError(400, f"{HEADER_LENGTH} is {given!r}; the request has {size} bytes")
    return bytes(whole[: int(given)]), whole[int(given) :]
