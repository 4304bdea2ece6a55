"""Runs a server of worlds alone, or makes the worlds that an image server shows too."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

import swiftdiff
from swiftdiff.server.app import answer_errors
from swiftdiff.server.config import ServerConfig
from swiftdiff.server.guard import Guard
from swiftdiff.server.run import MARGIN_S, SignalledUvicorn, address_of, listen
from swiftdiff.server.schema import Health
from swiftdiff.server.world_config import StreamConfig
from swiftdiff.server.world_routes import add_worlds
from swiftdiff.server.world_service import WorldService
from swiftdiff.world.config import WorldConfig


def open_worlds(world: WorldConfig, stream: StreamConfig, device: str = "cpu") -> WorldService:
    """Load a model and return the worlds that can be made of it.

    Args:
        world: The model and how it is run.
        stream: How its worlds are shown.
        device: Where it computes.

    Raises:
        SwiftdiffError: The model cannot be loaded, or no world of it fits the memory budget.
    """
    from swiftdiff.world.engine import WorldEngine
    from swiftdiff.world.loading import load_world

    return WorldService(WorldEngine(load_world(world.model, device), world, profile=False), stream)


def run_worlds(
    config: ServerConfig,
    open_service: Callable[[], WorldService],
    *,
    announce: Callable[[str], None],
    loading: Callable[[], None],
) -> None:
    """Serve until SIGTERM or SIGINT, which end all worlds; a second signal ends at once.

    Args:
        config: The server; what concerns images is not looked at.
        open_service: Makes the worlds.
        announce: Called with the server's address once it accepts requests.
        loading: Called once the address is taken, before the model is loaded.

    Raises:
        ConfigError: The address cannot be listened on.
        SwiftdiffError: As `open_service`.
    """
    listener = listen(config)
    try:
        loading()
        service = open_service()
        if not WorldServer(service, config, lambda: announce(address_of(listener, config))).run(listener):
            os._exit(0)  # a step outlasts all patience
    finally:
        listener.close()


class WorldServer:
    """A server of worlds and its event loop.

    Args:
        service: The worlds; closed with the server.
        config: The server.
        announce: Called once it accepts requests.
    """

    def __init__(self, service: WorldService, config: ServerConfig, announce: Callable[[], None]) -> None:
        self._service = service
        self._announce = announce
        self._loop: asyncio.AbstractEventLoop | None = None
        self._uvicorn = SignalledUvicorn(
            uvicorn.Config(
                create_world_app(service, config),
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(MARGIN_S),
                timeout_keep_alive=30,
            ),
            self._drain,
        )

    def run(self, listener: socket.socket) -> bool:
        """Serve on a socket until `stop` or, in the main thread, a signal; tell whether all threads ended."""
        self._service.prepare(listener)
        try:
            asyncio.run(self._serve(listener))
        finally:
            ended = self._service.close(MARGIN_S)
        return ended

    def stop(self) -> None:
        """End all worlds and the server, as the first signal does."""
        if not self._uvicorn.should_exit:
            self._uvicorn.handle_exit(signal.SIGTERM, None)

    async def _serve(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._announce()
        await self._uvicorn.serve(sockets=[listener])

    def _drain(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._service.drain)


def create_world_app(service: WorldService, config: ServerConfig) -> FastAPI:
    """Return the application of a server that shows worlds alone.

    Args:
        service: The worlds; closed by the caller.
        config: The server.
    """
    app = FastAPI(
        title="swiftdiff world",
        version=swiftdiff.__version__,
        summary="Worlds that run live and are steered",
        docs_url=None,  # it would fetch its scripts from elsewhere
        redoc_url=None,
    )
    registry = CollectorRegistry()
    registry.register(service.metrics.registry)
    ProcessCollector(registry=registry)
    add_worlds(app, service, config)

    @app.get("/health", response_model=Health, tags=["status"])
    async def health() -> Response:
        """Tell whether worlds can be begun."""
        state = Health(status="draining" if service.is_draining else "ok")
        return Response(
            state.model_dump_json(), 503 if service.is_draining else 200, media_type="application/json"
        )

    @app.get("/metrics", response_class=Response, tags=["status"])
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    answer_errors(app)
    app.router.routes.append(Route("/", lambda http: RedirectResponse("world/")))
    app.add_middleware(Guard, config=config)
    return app
