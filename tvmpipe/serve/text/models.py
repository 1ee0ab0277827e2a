"""`/v1/models`: what is served."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tvmpipe.serve.text.respond import answering, check_model
from tvmpipe.serve.text.service import Service


def routes(service: Service) -> list[BaseRoute]:
    """The list, and each of it."""
    return [
        Route("/v1/models", answering(service, _list), methods=["GET"]),
        Route("/v1/models/{name:path}", answering(service, _one), methods=["GET"]),
    ]


async def _list(_: Request, service: Service) -> Response:
    return JSONResponse({"object": "list", "data": [_told(service)]})


async def _one(request: Request, service: Service) -> Response:
    check_model(service, request.path_params["name"])
    return JSONResponse(_told(service))


def _told(service: Service) -> dict[str, Any]:
    return {"id": service.name, "object": "model", "created": service.created, "owned_by": "tvmpipe"}
