"""Refuses requests before anything reads them: a wrong ``Host``, a missing API key."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from swiftdiff.server.config import ServerConfig
from swiftdiff.server.errors import HttpError

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PROTECTED = ("/v1/", "/metrics")


class Guard:
    """ASGI middleware.

    A page of another origin can make a browser send requests to this machine. It cannot read the answers, but
    if its own name resolves to a loopback address (DNS rebinding) it could: hence the check of ``Host``.

    Args:
        app: What is guarded.
        config: The server.
    """

    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        self._app = app
        hosts: Iterable[str] | None = config.allowed_hosts
        if hosts is None and config.is_local:
            hosts = ()
        self._hosts = None if hosts is None else {*_LOOPBACK, config.host, *map(str.lower, hosts)}
        self._key = None if config.api_key is None else _digest(config.api_key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            error = self._find_fault(Headers(scope=scope), scope["path"], scope["method"])
            if error is not None:
                await refusal(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _find_fault(self, headers: Headers, path: str, method: str) -> HttpError | None:
        if self._hosts is not None and _host_name(headers.get("host", "")) not in self._hosts:
            return HttpError(421, "this server does not answer under that host name", "wrong_host")
        if self._key is None or not path.startswith(_PROTECTED) or method == "OPTIONS":
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Digests have one length: comparing them takes the same time whatever was sent.
        is_right = hmac.compare_digest(_digest(given.strip()), self._key)
        if scheme.lower() == "bearer" and is_right:
            return None
        return HttpError(
            401,
            "a valid API key is needed: Authorization: Bearer <key>",
            "invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def refusal(error: HttpError, request_id: str | None = None) -> Response:
    """Return an error as OpenAI's API would."""
    headers = dict(error.headers)
    if request_id is not None:
        headers["X-Request-Id"] = request_id
    return Response(
        error.body().model_dump_json(), error.status, headers=headers, media_type="application/json"
    )


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


def _host_name(header: str) -> str:
    """Return a ``Host`` header without port and brackets, in lower case."""
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
