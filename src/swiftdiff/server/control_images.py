"""Owns control images from clients: decoded within limits before anything else reads them."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from pathlib import Path

from PIL import Image

from swiftdiff.server.errors import HttpError

FORMATS = ("PNG", "JPEG", "WEBP")


def save_control_image(data: str, path: Path, *, max_pixels: int, field: str) -> None:
    """Check a control image and write it where the system reads it.

    Args:
        data: Base64 of a file, or a ``data:`` URL of one.
        path: The file.
        max_pixels: Width times height at most; a larger one is refused by its header, undecoded.
        field: The field that errors name.

    Raises:
        HttpError: It is not base64, no picture of a known format, damaged or too large.
    """
    file = _decode_base64(data, field)
    _check(file, max_pixels, field)
    path.write_bytes(file)


def _decode_base64(data: str, field: str) -> bytes:
    if data.startswith("data:"):
        _, _, data = data.partition(",")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refusal(field, "it is not base64") from error


def _check(file: bytes, max_pixels: int, field: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, higher, limit; this one comes first
            with Image.open(io.BytesIO(file), formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise _refusal(
                        field, f"it has {image.width}x{image.height} pixels, of {max_pixels} allowed"
                    )
                image.load()
    except HttpError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        raise _refusal(field, "it is no whole PNG, JPEG or WebP file") from error


def _refusal(field: str, reason: str) -> HttpError:
    return HttpError(
        400, f"{field} cannot be read as a picture: {reason}", "invalid_control_image", param=field
    )
