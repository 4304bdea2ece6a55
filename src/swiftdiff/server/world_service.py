"""Owns the worlds that one server shows: which run, who may begin another, who may watch."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from typing import TYPE_CHECKING

from swiftdiff.errors import ConfigError, RequestError, SwiftdiffError
from swiftdiff.server.errors import HttpError, not_ready
from swiftdiff.server.world_channel import World
from swiftdiff.server.world_config import StreamConfig
from swiftdiff.server.world_metrics import WorldMetrics
from swiftdiff.server.world_viewer import Viewer, keep_live
from swiftdiff.world.admission import BudgetError
from swiftdiff.world.session import SessionClosedError

if TYPE_CHECKING:
    from swiftdiff.world.engine import WorldEngine

LOGGER = logging.getLogger("swiftdiff.server")
RETRY_AFTER_S = "5"


class WorldService:
    """Shows the worlds of one engine. For the event loop, but for `close`.

    Args:
        engine: Makes them; closed with the service.
        config: How they are shown.

    Attributes:
        metrics: Count what happens.
        fps: Frames a second at most.
        is_draining: Whether no world can be begun any more.
    """

    def __init__(self, engine: WorldEngine, config: StreamConfig) -> None:
        self.engine = engine
        self.config = config
        self.fps = config.fps or engine.fps
        self.metrics = WorldMetrics(
            lambda: len(self._worlds), lambda: self.num_viewers, lambda: engine.cache_bytes
        )
        self._worlds: dict[str, World] = {}
        self.is_draining = False

    @property
    def worlds(self) -> tuple[World, ...]:
        """Those that run now."""
        return tuple(self._worlds.values())

    @property
    def num_viewers(self) -> int:
        """Clients that watch now, all worlds together."""
        return sum(world.num_viewers for world in self.worlds)

    def prepare(self, listener: socket.socket) -> None:
        """Let a socket take connections that stay live; before the event loop begins."""
        keep_live(listener)

    async def open(self, prompt: str, seed: int) -> World:
        """Begin a world.

        Raises:
            HttpError: There is no place, the prompt means nothing to the model, or the server ends.
        """
        self._check_open()
        try:
            session = await asyncio.to_thread(self.engine.open, prompt, seed)
        except Exception as error:
            raise refuse(error, "prompt") from error
        try:
            self._check_open()
        except HttpError:
            session.close()
            raise
        world = World(
            secrets.token_urlsafe(16),
            session,
            fps=self.fps,
            config=self.config,
            metrics=self.metrics,
            on_end=self._forget,
        )
        self._worlds[world.id] = world
        self.metrics.opened()
        return world

    def find(self, world_id: str) -> World:
        """Return a world that runs.

        Raises:
            HttpError: There is none of that name, or not any more.
        """
        world = self._worlds.get(world_id)
        if world is None:
            raise HttpError(404, "there is no such world, or not any more", "world_not_found")
        return world

    def watch(self, world: World) -> Viewer:
        """Return a place to watch a world from; the world's `leave` is owed for it.

        Raises:
            HttpError: There are as many viewers as may be.
        """
        if self.num_viewers >= self.config.max_viewers:
            raise HttpError(
                429,
                f"{self.config.max_viewers} streams are watched, and no more are served",
                "too_many_viewers",
                headers={"Retry-After": RETRY_AFTER_S},
            )
        return world.watch()

    def drain(self) -> None:
        """Begin no world any more, and end all that run."""
        self.is_draining = True
        for world in self.worlds:
            world.close(not_ready("draining"))

    def close(self, patience_s: float) -> bool:
        """Wait for the worlds' threads, once the event loop has ended; false if one does not end."""
        end_s = time.monotonic() + patience_s
        ended = all(world.join(max(0.0, end_s - time.monotonic())) for world in self.worlds)
        if ended:
            self.engine.close()
        return ended

    def _check_open(self) -> None:
        if self.is_draining:
            raise not_ready("draining")

    def _forget(self, world: World) -> None:
        self._worlds.pop(world.id, None)


def refuse(error: Exception, param: str) -> HttpError:
    """Return the answer to what an engine refused, or failed at."""
    if isinstance(error, BudgetError):
        return HttpError(429, error.message, "no_place", headers={"Retry-After": RETRY_AFTER_S})
    if isinstance(error, SessionClosedError):
        return HttpError(410, "this world was ended", "world_ended")
    if isinstance(error, (RequestError, ConfigError)):
        return HttpError(400, error.message, "not_understood", param=param)
    LOGGER.error("a world failed", exc_info=None if isinstance(error, SwiftdiffError) else error)
    return HttpError(500, "this failed; the server's log says why", "internal_error")
