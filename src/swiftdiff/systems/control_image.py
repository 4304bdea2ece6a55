"""Reads a request's control images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from swiftdiff.errors import RequestError
from swiftdiff.request import ControlNetUse, ImageRequest


def load_control_images(request: ImageRequest, images_root: Path) -> list[Image.Image]:
    """Return the request's control images, RGB, in the order of its ControlNets.

    They keep their own size: a picture of another size than the request's is resized (Lanczos) by the stock
    pipeline, as it would be for any user of diffusers.

    Raises:
        RequestError: An image is missing or cannot be decoded.
    """
    return [_load(use, images_root, request.request_id) for use in request.controlnets]


def _load(use: ControlNetUse, images_root: Path, request_id: str) -> Image.Image:
    path = images_root / use.image
    where = f"request {request_id}: control image {path} of ControlNet {use.id!r}"
    try:
        with Image.open(path) as image:
            return _to_rgb(image)
    except FileNotFoundError as error:
        raise RequestError(f"{where} does not exist") from error
    except Exception as error:  # Pillow's decoders raise many kinds
        reason = str(error).replace(repr(str(path)), "it")
        raise RequestError(f"{where} cannot be read as a picture ({reason})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # 16-bit depth: Pillow's own conversion would clip it to white
        pixels = np.asarray(image, dtype=np.uint16)
        image = Image.fromarray((pixels // 257).astype(np.uint8))
    return image.convert("RGB")
