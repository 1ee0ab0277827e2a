"""What an error is for a client: a status, and one sentence."""

from __future__ import annotations

from starlette.responses import JSONResponse

from tvmpipe.errors import StageError
from tvmpipe.serve.errors import RequestError, as_request_error
from tvmpipe.serve.tensors.model import LateError, UnknownModelError


def told(error: Exception) -> RequestError:
    """404 another model, 500 what a stage raised, 504 too late, and the others as for every server."""
    for kind, status in ((UnknownModelError, 404), (StageError, 500), (LateError, 504)):
        if isinstance(error, kind):
            return RequestError(status, str(error))
    return as_request_error(error)


def error_response(error: Exception) -> JSONResponse:
    """As the protocol has it."""
    one = told(error)
    return JSONResponse({"error": str(one)}, one.status, one.headers)
