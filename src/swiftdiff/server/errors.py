"""Owns how refusals look: OpenAI's error object, without paths or traces, and a kind for the metrics."""

from __future__ import annotations

import math
from collections.abc import Collection

from swiftdiff.adapters.store import StoreUnavailableError, UnknownAdapterError
from swiftdiff.errors import AdapterError, RequestError, SwiftdiffError
from swiftdiff.server.schema import ErrorBody, ErrorResponse


class HttpError(SwiftdiffError):
    """A request is not served.

    Args:
        status: Of HTTP.
        message: For the client: no paths, no traces.
        code: For programs, and the kind of error in the metrics.
        param: The field that is wrong.
        headers: Further ones.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = headers or {}

    def body(self) -> ErrorResponse:
        """Return what the client reads."""
        return ErrorResponse(
            error=ErrorBody(
                message=self.message, type=_type_of(self.status), param=self.param, code=self.code
            )
        )


class RequestCancelled(SwiftdiffError):  # noqa: N818  (no mistake of anybody's)
    """Raised before a step of a request that nobody waits for any more."""


def queue_full(retry_after_s: float) -> HttpError:
    """Return the refusal of a request that finds no place."""
    seconds = str(max(1, math.ceil(retry_after_s)))
    return HttpError(
        429,
        f"the queue is full; try again in {seconds} s",
        "queue_full",
        headers={"Retry-After": seconds},
    )


def deadline_passed(allowed_ms: float) -> HttpError:
    """Return the answer to a request that could not be served in time."""
    return HttpError(
        504,
        f"the request could not be served within {allowed_ms:g} ms",
        "deadline_exceeded",
        headers={"X-Should-Retry": "false"},  # OpenAI's clients ask again at once without it
    )


def not_ready(reason: str, retry_after_s: int = 5) -> HttpError:
    """Return the answer while the model loads or the server shuts down."""
    return HttpError(
        503, f"the server is {reason}", f"server_{reason}", headers={"Retry-After": str(retry_after_s)}
    )


def public_error(error: BaseException, adapter_ids: Collection[str] = ()) -> HttpError:
    """Return what a client may know of what went wrong while its request was served.

    Args:
        error: What went wrong. Its words may hold paths, so they are not passed on.
        adapter_ids: The request's adapters, of which those that the error names are named to the client.
    """
    if isinstance(error, HttpError):
        return error
    if isinstance(error, UnknownAdapterError):
        return HttpError(404, f"{_who(error, adapter_ids)} is not in the store any more", "adapter_not_found")
    if isinstance(error, StoreUnavailableError):
        return HttpError(
            503, "the adapter store does not answer", "store_unavailable", headers={"Retry-After": "5"}
        )
    if isinstance(error, AdapterError):
        who = _who(error, adapter_ids)
        return HttpError(422, f"{who} is damaged or does not fit the model", "adapter_unusable")
    if isinstance(error, RequestError):
        return HttpError(
            422,
            "denoising gave no picture: a value became NaN or infinite; look at the adapters, their scales "
            "and guidance_scale",
            "unservable",
        )
    return HttpError(500, "the request failed; the server's log says why", "internal_error")


def _who(error: SwiftdiffError, adapter_ids: Collection[str]) -> str:
    named = {name for name in adapter_ids if repr(name) in error.message}
    return f"adapter {named.pop()!r}" if len(named) == 1 else "an adapter of this request"


def _type_of(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
