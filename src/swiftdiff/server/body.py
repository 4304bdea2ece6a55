"""Reads a request's body: JSON, within limits of size and time."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from swiftdiff.server.config import Limits
from swiftdiff.server.errors import HttpError


async def read_json_body(http: Request, limits: Limits) -> bytes:
    """Return the body.

    A content type other than JSON is refused although the body might be read: browsers send such requests
    across origins without asking first.

    Raises:
        HttpError: It is too large, too slow, or not declared to be JSON.
        ClientDisconnect: The client left.
    """
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HttpError(415, "the body must be sent as Content-Type: application/json", "not_json")
    declared = http.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.body_bytes:
        raise _too_large(limits)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_s):
            async for chunk in http.stream():
                size += len(chunk)
                if size > limits.body_bytes:
                    raise _too_large(limits)
                chunks.append(chunk)
    except TimeoutError:
        raise HttpError(408, f"the body was not here within {limits.body_s} s", "body_timeout") from None
    return b"".join(chunks)


def _too_large(limits: Limits) -> HttpError:
    return HttpError(
        413,
        f"the body is too large: at most {limits.body_bytes} bytes are read",
        "body_too_large",
        headers={"Connection": "close"},
    )
