"""Runs a server in this process: socket, event loop, signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from swiftdiff.config import ServingConfig
from swiftdiff.errors import ConfigError
from swiftdiff.server.app import create_app
from swiftdiff.server.config import ServerConfig
from swiftdiff.server.service import Server
from swiftdiff.systems import ServingSystem, build_system

if TYPE_CHECKING:
    from swiftdiff.server.world_service import WorldService

MARGIN_S = 5.0  # after the time to drain: for the last answers to leave


def run_server(
    config: ServerConfig,
    system: ServingConfig,
    *,
    announce: Callable[[str], None],
    loading: Callable[[], None] = lambda: None,
    build: Callable[[ServingConfig], ServingSystem] = build_system,
    open_worlds: Callable[[], WorldService] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT: what was accepted is served first; a second signal ends at once.

    Args:
        config: The server.
        system: What it serves with.
        announce: Called with the server's address once it accepts requests.
        loading: Called once the address is taken, before the model is loaded.
        build: Makes the system.
        open_worlds: Makes the worlds that are shown too, if any.

    Raises:
        ConfigError: The address cannot be listened on.
        SwiftdiffError: The model, its adapters or the access log cannot be used.
    """
    listener = listen(config)
    try:
        address = address_of(listener, config)
        loading()
        worlds = None if open_worlds is None else open_worlds()
        if not HttpServer(config, system, build, lambda: announce(address), worlds).run(listener):
            os._exit(0)  # a step or a load outlasts all patience; records are on the disk
    finally:
        listener.close()


class HttpServer:
    """A server and its event loop.

    Args:
        config: The server.
        system: What it serves with.
        build: Makes the system.
        announce: Called once it accepts requests.
        worlds: Shown too, if any; they end with the server.

    Attributes:
        server: What answers.
    """

    def __init__(
        self,
        config: ServerConfig,
        system: ServingConfig,
        build: Callable[[ServingConfig], ServingSystem],
        announce: Callable[[], None],
        worlds: WorldService | None = None,
    ) -> None:
        self._config = config
        self._announce = announce
        self._worlds = worlds
        self._loop: asyncio.AbstractEventLoop | None = None
        self.server = Server(config, system, build=build, on_change=self._worker_changed)
        self._uvicorn = SignalledUvicorn(
            uvicorn.Config(
                create_app(self.server, worlds),
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(config.drain_s + MARGIN_S),
                timeout_keep_alive=30,
            ),
            self._drain,
        )

    def run(self, listener: socket.socket) -> bool:
        """Serve on a socket until `stop` or, in the main thread, a signal.

        Returns:
            Whether the thread that serves has ended too.

        Raises:
            Exception: Why the system could not be made, or could not serve any more.
        """
        if self._worlds is not None:
            self._worlds.prepare(listener)
        try:
            asyncio.run(self._serve(listener))
        finally:
            ended = self.server.close(MARGIN_S)
            if self._worlds is not None:
                ended = self._worlds.close(MARGIN_S) and ended
        failure = self.server.worker.failure
        if failure is not None:
            raise failure
        return ended

    def stop(self) -> None:
        """Serve what was accepted, and end; as the first signal does."""
        if not self._uvicorn.should_exit:
            self._uvicorn.handle_exit(signal.SIGTERM, None)

    async def _serve(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self.server.worker.start()
        await self._uvicorn.serve(sockets=[listener])

    def _worker_changed(self) -> None:
        """Announce that requests are accepted, or end the process, whose supervisor starts another."""
        if self.server.worker.state == "ok":
            self._announce()
        elif self.server.worker.state == "failed":
            self._uvicorn.should_exit = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self.server.abandon_all)

    def _drain(self) -> None:
        """Take nothing more, and give up what is not served when the time is over."""
        self.server.worker.drain()
        if self._loop is not None:
            if self._worlds is not None:
                self._loop.call_soon_threadsafe(self._worlds.drain)
            self._loop.call_soon_threadsafe(
                self._loop.call_later, self._config.drain_s, self.server.abandon_all
            )


class SignalledUvicorn(uvicorn.Server):
    """uvicorn, whose second signal ends the process whatever it does.

    Args:
        config: Of uvicorn.
        drain: Called at the first signal.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain
        self._asked = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain, or end at once if that was asked for already."""
        if self._asked:
            signal.signal(sig, signal.SIG_DFL)
            os.kill(os.getpid(), sig)
        self._asked = self.should_exit = True
        self._drain()


def listen(config: ServerConfig) -> socket.socket:
    """Return a socket that listens where a server shall.

    Raises:
        ConfigError: It cannot: the port is in use, say.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"cannot listen on {config.host}: {error.strerror or error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {config.host} port {config.port}: {error.strerror or error}; "
            "choose another with --port (0 is any free one)"
        ) from error
    return listener


def address_of(listener: socket.socket, config: ServerConfig) -> str:
    """Return where browsers find a server."""
    port = listener.getsockname()[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.host, config.host)
    return f"http://[{host}]:{port}" if ":" in host and "[" not in host else f"http://{host}:{port}"
