"""Owns how a request and its answer look on the wire: OpenAI's Images API with extra fields for adapters."""

from __future__ import annotations

import base64
import binascii
import io
import json
import warnings
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swiftdiff.errors import RequestError
from swiftdiff.request import MAX_SIDE, AdapterRecord, ImageRequest

MAX_CONTROL_BYTES = 64 << 20
_SHOWN = 300  # characters of an answer that is no JSON


class WireError(Exception):
    """What a server answered is no picture.

    Args:
        kind: For the table of failures, such as ``HTTP 429``.
        message: The server's own words, as far as it gave any.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ServerAccount(BaseModel):
    """What a swiftdiff server tells of how it served a request, beside the pictures.

    Attributes:
        queue_wait_s: Seconds from arrival at the server to service.
        stages: Seconds by stage name.
        adapters: How each adapter came.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    queue_wait_s: Annotated[float, Field(ge=0)]
    stages: dict[Annotated[str, Field(min_length=1, max_length=64)], float]
    adapters: tuple[AdapterRecord, ...] = ()


def encode_request(request: ImageRequest, images_root: Path, model: str | None) -> bytes:
    """Return the body of ``POST /v1/images/generations``; control images go along as base64.

    Raises:
        RequestError: A control image cannot be read, or only one side of the picture is given.
    """
    body: dict[str, Any] = {
        "model": model,
        "prompt": request.prompt,
        "n": request.num_images,
        "size": _size(request),
        "response_format": "b64_json",
        "negative_prompt": request.negative_prompt,
        "seed": request.seed,
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
        "controlnets": [
            {**use.model_dump(), "image": _read_base64(images_root / use.image, request.request_id)}
            for use in request.controlnets
        ],
        "loras": [use.model_dump() for use in request.loras],
        "slo_ms": request.slo_ms,
    }
    return json.dumps({name: value for name, value in body.items() if value not in (None, [])}).encode()


def decode_answer(status: int, content: bytes, num_images: int) -> tuple[list[bytes], ServerAccount | None]:
    """Return the pictures as files and what the server tells about them, if it does.

    Raises:
        WireError: It is a refusal, or no such answer.
    """
    try:
        answer: Any = json.loads(content)
    except ValueError:
        answer = None
    if status != 200:
        raise WireError(f"HTTP {status}", _complaint(answer, content))
    try:
        pictures = [base64.b64decode(entry["b64_json"], validate=True) for entry in answer["data"]]
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise WireError("BadAnswer", f"no data[].b64_json in it: {_shorten(content)}") from error
    if len(pictures) != num_images:
        raise WireError("BadAnswer", f"{len(pictures)} pictures in place of {num_images}")
    return pictures, _account(answer.get("swiftdiff"))


def decode_picture(content: bytes) -> Image.Image:
    """Return a picture of an answer.

    Raises:
        WireError: It is none, or larger than any that was asked for can be.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size is checked here
            picture = Image.open(io.BytesIO(content))
        if max(picture.size) > MAX_SIDE:
            raise WireError("BadAnswer", f"a picture of {picture.width}×{picture.height} pixels")
        return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise WireError("BadAnswer", f"a picture that cannot be read: {error}") from error


def _size(request: ImageRequest) -> str | None:
    if request.width is None and request.height is None:
        return None
    if request.width is None or request.height is None:
        allowed = "given for both sides or for none, since the server's own size is not known here"
        raise RequestError.for_field("width, height", (request.width, request.height), allowed)
    return f"{request.width}x{request.height}"


def _read_base64(path: Path, request_id: str) -> str:
    try:
        if path.stat().st_size > MAX_CONTROL_BYTES:
            raise RequestError(f"request {request_id}: {path} is too large for a control image")
        return base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        reason = error.strerror or error
        raise RequestError(f"request {request_id}: cannot read control image {path}: {reason}") from error


def _complaint(answer: Any, content: bytes) -> str:
    """Return what a refusal says: OpenAI's error, FastAPI's detail, or its first characters."""
    found: Any = answer
    for name in ("error", "message"):
        if isinstance(found, dict):
            found = found.get(name, found.get("detail"))
    return found if isinstance(found, str) and found else _shorten(content) or "no reason given"


def _shorten(content: bytes) -> str:
    return " ".join(content[:_SHOWN].decode(errors="replace").split())


def _account(told: Any) -> ServerAccount | None:
    try:
        return ServerAccount.model_validate_json(json.dumps(told))
    except ValidationError:
        return None
