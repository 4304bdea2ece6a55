"""Owns which fields a source may have under our own names, and reads a request from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .source import Adapter, SourceRequest
from .values import adapters, adapters_from_text, number, text, whole

FIELDS = (
    "timestamp", "prompt", "negative_prompt", "width", "height", "num_inference_steps", "guidance_scale",
    "num_images", "slo_ms", "controlnets", "loras", "base_model",
)  # fmt: skip


def request_from_fields(
    fields: Mapping[str, Any], where: str, notes: tuple[tuple[str, str], ...] = ()
) -> SourceRequest:
    """Return the request that has these fields, as JSON values or as the text of cells; others are ignored.

    Raises:
        TraceError: A field's value is of the wrong kind.
    """
    return SourceRequest(
        where=where,
        timestamp=fields.get("timestamp"),
        prompt=text(fields.get("prompt"), "prompt", where),
        negative_prompt=text(fields.get("negative_prompt"), "negative_prompt", where),
        width=whole(fields.get("width"), "width", where),
        height=whole(fields.get("height"), "height", where),
        num_inference_steps=whole(fields.get("num_inference_steps"), "num_inference_steps", where),
        guidance_scale=number(fields.get("guidance_scale"), "guidance_scale", where),
        num_images=whole(fields.get("num_images"), "num_images", where),
        slo_ms=number(fields.get("slo_ms"), "slo_ms", where),
        controlnets=tuple(identity for identity, _ in _adapters(fields, "controlnets", where)),
        loras=_adapters(fields, "loras", where),
        base_model=text(fields.get("base_model"), "base_model", where),
        notes=notes,
    )


def _adapters(fields: Mapping[str, Any], name: str, where: str) -> tuple[Adapter, ...]:
    value = fields.get(name)
    return adapters_from_text(value, name, where) if isinstance(value, str) else adapters(value, name, where)
