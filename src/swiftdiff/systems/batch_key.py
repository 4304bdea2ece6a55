"""Tells which requests may be denoised as one batch."""

from __future__ import annotations

from collections.abc import Hashable

from swiftdiff.request import ImageRequest


def batch_key(request: ImageRequest, native_side: int) -> Hashable:
    """Return what requests must agree in: all but prompts, seeds, control images and numbers of pictures.

    Args:
        request: The request.
        native_side: Of a picture whose request names no size, in pixels.
    """
    return (
        request.width or native_side,
        request.height or native_side,
        request.num_inference_steps,
        request.guidance_scale,
        tuple((use.id, use.scale, use.start, use.end) for use in request.controlnets),
        request.loras,
    )
