"""What went wrong, as OpenAI's API says it: a status, and an object with one sentence."""

from __future__ import annotations

import logging
from typing import Any

from pydantic import ValidationError
from starlette.responses import JSONResponse

from tvmpipe.errors import InputError, QueueFullError, TvmpipeError

logger = logging.getLogger(__name__)

INVALID = "invalid_request_error"


class TooBusyError(QueueFullError):
    """As many generations run and wait as may; `again_s` is when a place may be free, in whole seconds."""

    def __init__(self, message: str, again_s: int) -> None:
        super().__init__(message)
        self.again_s = again_s


class StoppingError(TvmpipeError):
    """The server takes nothing more, and what is not done yet is cancelled."""

    def __init__(self) -> None:
        super().__init__("the server is stopping")


class FaultError(TvmpipeError):
    """A generation met a fault of our own, which ended it alone and has been logged."""

    def __init__(self) -> None:
        super().__init__("the server failed on this request; its log says why")


class RequestError(TvmpipeError):
    """A request that is answered with a status other than 200. `param` is the field that is wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = headers


def as_request_error(error: Exception) -> RequestError:
    """Which answer an error is: 400 what the client asked wrongly, 429 no place, 503 devices, 500 our own fault."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, ValidationError):
        return _invalid(error)
    if isinstance(error, TooBusyError):
        headers = {"Retry-After": str(error.again_s)}
        return RequestError(429, str(error), kind="rate_limit_error", code="rate_limit_exceeded", headers=headers)
    if isinstance(error, InputError):
        return RequestError(400, str(error))
    if isinstance(error, QueueFullError):
        return RequestError(503, str(error), kind="server_error", headers={"Retry-After": "1"})
    if isinstance(error, TvmpipeError) and not isinstance(error, FaultError):
        return RequestError(503, str(error), kind="server_error")
    if not isinstance(error, FaultError):
        logger.error("a request failed", exc_info=error)
    return RequestError(500, str(FaultError()), kind="server_error")


def error_body(error: RequestError) -> dict[str, Any]:
    """The object that OpenAI's clients look for."""
    return {"error": {"message": str(error), "type": error.kind, "param": error.param, "code": error.code}}


def error_response(error: Exception) -> JSONResponse:
    """The answer to a request that failed before anything was sent."""
    told = as_request_error(error)
    return JSONResponse(error_body(told), told.status, told.headers)


def _invalid(error: ValidationError) -> RequestError:
    """The first thing that is wrong with a request's fields, in one sentence."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return RequestError(400, f"there is no parameter {place!r}", param=place, code="unknown_parameter")
    if first["type"] == "json_invalid":
        return RequestError(400, f"the request is not JSON: {message}", code="invalid_json")
    if not place:
        return RequestError(400, message)
    return RequestError(400, f"{place}: {message[:1].lower()}{message[1:]}", param=place)
