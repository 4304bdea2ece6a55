"""Completes the OpenAPI document: bodies, limits and refusals, which the framework cannot know."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from swiftdiff.server.config import ServerConfig
from swiftdiff.server.schema import (
    CompletedEvent,
    ErrorResponse,
    GenerationRequest,
    Health,
    ImagesResponse,
    PartialImageEvent,
)

_REF = "#/components/schemas/{model}"
_GENERATIONS = "/v1/images/generations"
_REFUSALS = {
    400: "The body is malformed, asks for too much, or for what cannot be served",
    404: "There is no such model or adapter",
    408: "The body came too slowly",
    413: "The body is too large",
    415: "The body is not JSON",
    422: "An adapter is damaged, or denoising gave no picture",
    429: "The queue is full; Retry-After says when to come again",
    500: "The request failed",
    503: "The server loads, drains, or cannot reach its adapter store or its access log",
    504: "The request could not be served in time",
}


def complete_document(document: dict[str, Any], config: ServerConfig) -> dict[str, Any]:
    """Return the framework's document with what is ours.

    Args:
        document: As the framework made it; changed in place.
        config: The server, whose limits the document shows.
    """
    models = (CompletedEvent, ErrorResponse, GenerationRequest, Health, ImagesResponse, PartialImageEvent)
    _, ours = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= ours["$defs"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    _show_limits(schemas, config)
    operation = document["paths"][_GENERATIONS]["post"]
    operation["requestBody"] = {"required": True, "content": {"application/json": _ref("GenerationRequest")}}
    operation["responses"] = {
        "200": {
            "description": "The pictures; with stream, events; with Accept: image/png, the picture",
            "content": {
                "application/json": _ref("ImagesResponse"),
                "text/event-stream": {},
                "image/png": {"schema": {"type": "string", "format": "binary"}},
            },
            "headers": {"X-Request-Id": {"schema": {"type": "string"}}},
        },
        **{str(status): _refusal(text) for status, text in _REFUSALS.items()},
    }
    for path, methods in document["paths"].items():
        for each in methods.values():
            _complete(each, path, config)
    if config.api_key is not None:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return document


def _complete(operation: dict[str, Any], path: str, config: ServerConfig) -> None:
    responses = operation["responses"]
    if path in ("/health", "/ready"):
        responses["503"] = {"description": "Not now", "content": {"application/json": _ref("Health")}}
    if path == "/v1/models/{model}":
        responses.pop("422", None)
        responses["404"] = _refusal("There is no such model")
    if path == "/metrics":
        responses["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    if config.api_key is not None and path.startswith(("/v1/", "/metrics")):
        operation["security"] = [{"key": []}]
        responses["401"] = _refusal("The API key is missing or wrong")


def _show_limits(schemas: dict[str, Any], config: ServerConfig) -> None:
    limits = config.limits
    fields = schemas["GenerationRequest"]["properties"]
    for name, key, limit in (
        ("prompt", "maxLength", limits.prompt_chars),
        ("negative_prompt", "maxLength", limits.prompt_chars),
        ("n", "maximum", limits.images),
        ("num_inference_steps", "maximum", limits.steps),
        ("controlnets", "maxItems", limits.controlnets),
        ("loras", "maxItems", limits.loras),
    ):
        field = fields[name]
        target = next((each for each in field.get("anyOf", ()) if each.get("type") != "null"), field)
        target[key] = limit
    fields["size"]["description"] = (
        f"width x height in multiples of 8, at most {limits.side} a side and {limits.pixels} pixels"
    )


def _ref(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": _REF.format(model=name)}}


def _refusal(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": _ref("ErrorResponse")}}
