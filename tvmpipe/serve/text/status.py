"""`/healthz` and `/metrics`, for those who watch over the server."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tvmpipe.serve.text.respond import answering
from tvmpipe.serve.text.service import Service


def routes(service: Service) -> list[BaseRoute]:
    """Both."""
    return [
        Route("/healthz", answering(service, _health), methods=["GET"]),
        Route("/metrics", answering(service, _metrics), methods=["GET"]),
    ]


async def _health(_: Request, service: Service) -> Response:
    engine = service.engine
    return JSONResponse({"status": "ok", "running": engine.running, "waiting": engine.waiting})


async def _metrics(_: Request, service: Service) -> Response:
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)
