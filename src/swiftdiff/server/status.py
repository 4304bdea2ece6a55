"""The routes that tell about the server: models, adapters, health, readiness, metrics."""

from __future__ import annotations

import asyncio
import time

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from swiftdiff.server.errors import HttpError
from swiftdiff.server.schema import (
    AdapterList,
    ControlNetListing,
    Health,
    LoraListing,
    ModelDescription,
    ModelList,
    ServedModelInfo,
)
from swiftdiff.server.service import Server
from swiftdiff.server.thumbnails import thumbnail_path
from swiftdiff.systems.switches import RequestSwitches
from swiftdiff.validation import StrictModel


def add_status(app: FastAPI, server: Server, *, has_worlds: bool) -> None:
    """Add the routes to an application.

    Args:
        app: The application.
        server: What they tell about.
        has_worlds: Whether the application shows live worlds too.
    """
    started_at = int(time.time())

    @app.get("/v1/models", response_model=ModelList, operation_id="list_models", tags=["models"])
    async def models() -> Response:
        model = ModelDescription(id=server.translator.model_id, created=started_at)
        return _json(ModelList(data=(model,), swiftdiff=_info(server, has_worlds)))

    @app.get(
        "/v1/models/{model}",
        response_model=ModelDescription,
        operation_id="retrieve_model",
        tags=["models"],
    )
    async def model(model: str) -> Response:
        if model != server.translator.model_id:
            raise HttpError(404, "there is no such model here", "model_not_found", param="model")
        return _json(ModelDescription(id=model, created=started_at))

    @app.get("/v1/adapters", response_model=AdapterList, operation_id="list_adapters", tags=["models"])
    async def adapters() -> Response:
        listing = await asyncio.to_thread(server.catalog.listing)
        return _json(
            AdapterList(
                loras=tuple(LoraListing(id=name, thumbnail=thumbnail_path(name)) for name in listing.loras),
                controlnets=tuple(ControlNetListing(id=name) for name in listing.controlnets),
            )
        )

    @app.get("/health", response_model=Health, operation_id="health", tags=["status"])
    async def health() -> Response:
        """Tell whether the process is of use: 503 if its worker has failed, to be restarted."""
        state = server.worker.state
        return _json(Health(status=state), 503 if state == "failed" else 200)

    @app.get("/ready", response_model=Health, operation_id="ready", tags=["status"])
    async def ready() -> Response:
        """Tell whether requests are accepted now."""
        state = server.worker.state
        return _json(Health(status=state), 200 if state == "ok" else 503)

    @app.get("/metrics", response_class=Response, operation_id="metrics", tags=["status"])
    async def metrics() -> Response:
        return Response(server.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _info(server: Server, has_worlds: bool) -> ServedModelInfo:
    system = server.system
    switches = RequestSwitches.defaults(system.swiftdiff) if system.engine == "swiftdiff" else {}
    return ServedModelInfo(
        system=system.name,
        engine=system.engine,
        engines=server.translator.engines,
        exactness=server.worker.exactness,
        switches=switches,
        native_size=server.catalog.native_size,
        limits=server.config.limits.model_dump(),
        defaults=server.config.defaults.model_dump(),
        worlds=has_worlds,
    )


def _json(model: StrictModel, status: int = 200) -> Response:
    return Response(model.model_dump_json(), status, media_type="application/json")
