"""Who may ask: whoever has the token, and without one only this machine."""

from __future__ import annotations

import hmac
import ipaddress
import os
import stat
from collections.abc import Callable
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tvmpipe.errors import InputError
from tvmpipe.serve.errors import RequestError, error_response

HEALTH = ("/healthz", "/v2/health/live", "/v2/health/ready")
"""What everybody may ask."""
_LONGEST_FILE = 4096
_LEAST_CHARACTERS = 16


def load_token(path: Path) -> str:
    """The token in a file: one word of 16 characters or more.

    Raises InputError for a file that is missing, holds none, or may be read or changed by other users.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_LONGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"token file {path} cannot be read: {error.strerror or error}") from None
    words = text.split()
    if len(text) > _LONGEST_FILE or len(words) != 1 or len(words[0]) < _LEAST_CHARACTERS or not words[0].isascii():
        raise InputError(
            f"token file {path} must hold one word of {_LEAST_CHARACTERS} ASCII characters or more; "
            f"`openssl rand -hex 32` makes one"
        )
    if mode & 0o077:
        raise InputError(
            f"token file {path} is open to other users (mode {stat.S_IMODE(mode):04o}), who may have read it: "
            f"`chmod 600 {path}`, and make another token if somebody else uses this machine"
        )
    return words[0].decode()


class Guard:
    """Lets requests with the token through, and everybody to the health check.

    Without a token the server listens on loopback alone, and requests must be for it by name: a page in a browser on
    this machine can reach it under a name of its own, by DNS rebinding.
    """

    def __init__(
        self, app: ASGIApp, token: str | None, refuse: Callable[[Exception], Response] = error_response
    ) -> None:
        """`refuse` makes the answer of a RequestError."""
        self._app = app
        self._token = token
        self._answer = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in HEALTH:
            refused = self._refuse(Headers(scope=scope))
            if refused is not None:
                await self._answer(refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refuse(self, headers: Headers) -> RequestError | None:
        if self._token is None:
            host = headers.get("host", "")
            if _is_loopback_name(host):
                return None
            return RequestError(403, f"requests without a token must be for localhost, not for {host!r}")
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token.encode()):
            return None
        return RequestError(
            401,
            "this server asks for its token, as `Authorization: Bearer TOKEN`",
            kind="authentication_error",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _is_loopback_name(host: str) -> bool:
    """Whether a Host header names loopback; no name is looked up."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
