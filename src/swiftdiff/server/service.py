"""Owns all that one server consists of, from its queue to its log, and its way from start to end."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from swiftdiff.config import ServingConfig
from swiftdiff.engine.clock import Clock, RealClock, RunClock
from swiftdiff.request import ImageRequest
from swiftdiff.server.access_log import AccessLog
from swiftdiff.server.batching import BatchPlanner
from swiftdiff.server.catalog import AdapterCatalog
from swiftdiff.server.config import ServerConfig
from swiftdiff.server.delivery import Delivery
from swiftdiff.server.errors import not_ready, queue_full
from swiftdiff.server.job import Failed, Job
from swiftdiff.server.metrics import Metrics
from swiftdiff.server.policies import POLICIES
from swiftdiff.server.stock import StockBeside
from swiftdiff.server.translation import Translator
from swiftdiff.server.waiting_room import WaitingRoom
from swiftdiff.server.worker import Worker
from swiftdiff.systems import ServingSystem, build_system


class Server:
    """One server without its socket.

    Args:
        config: The server.
        system: What it serves with.
        build: Makes the system.
        on_change: Called when the worker's state has changed, from any thread.

    Raises:
        SwiftdiffError: The model or its adapter store is not there, or the access log cannot be written.
    """

    def __init__(
        self,
        config: ServerConfig,
        system: ServingConfig,
        *,
        build: Callable[[ServingConfig], ServingSystem] = build_system,
        on_change: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
    ) -> None:
        self.config = config
        self.system = system
        self.clock = RunClock(clock or RealClock(), 0.0)
        self.catalog = AdapterCatalog(system, self.clock)
        self.log = AccessLog(
            None if config.access_log is None else Path(config.access_log),
            max_bytes=config.access_log_bytes,
            max_files=config.access_log_files,
        )
        self._images = tempfile.TemporaryDirectory(prefix="swiftdiff-server-")
        images_root = Path(self._images.name)
        self.translator = Translator(config, system, self.catalog, images_root)
        self.room = WaitingRoom(config.queue_size, POLICIES[config.policy], config.max_overtakes)
        planner = BatchPlanner(config.max_batch, self.catalog.native_size, self.clock)
        self.metrics = Metrics(
            config.queue_size,
            lambda: len(self.room),
            lambda: len(self.worker.in_service),
            planner.measured,
        )
        self.delivery = Delivery(self.log, self.metrics, self.clock)
        self.worker = Worker(
            lambda: build(system),
            StockBeside(system),
            self.room,
            self.delivery,
            self.metrics,
            planner=planner,
            images_root=images_root,
            clock=self.clock,
            on_change=on_change,
        )
        self._live: set[Job] = set()

    def check_ready(self) -> None:
        """Raise HttpError unless jobs are accepted."""
        if self.worker.state != "ok":
            raise not_ready(self.worker.state)

    def accept(self, job: Job) -> None:
        """Let a job wait.

        Raises:
            HttpError: There is no place, or nothing is accepted any more.
        """
        if not self.room.enter(job):
            self.check_ready()
            self.refuse_full()
        self._live.add(job)

    def refuse_full(self) -> NoReturn:
        """Raise HttpError that says when there may be a place: when half of those that wait are served."""
        raise queue_full(self.worker.service_s * len(self.room) / 2)

    def deadline_of(self, request: ImageRequest, arrived_s: float) -> float:
        """Return when a request is given up, by the server's clock."""
        deadline_s = arrived_s + self.config.timeout_s
        if request.slo_ms is None or self.config.slo == "target":
            return deadline_s
        return min(deadline_s, arrived_s + request.slo_ms / 1000)

    def forget(self, job: Job) -> None:
        """Note that a job's client has been answered or is gone."""
        self._live.discard(job)

    def abandon_all(self) -> None:
        """Answer 503 to all that still wait or are served: the time to drain is over. For the event loop."""
        error = not_ready("draining")
        for job in list(self._live):
            if self.delivery.end_unserved(job, error) is not None:
                self.room.leave(job)
                job.tell(Failed(error))

    def close(self, patience_s: float = 30.0) -> bool:
        """End the threads and write the last records; false if the one that serves does not end."""
        self.worker.drain()
        for job in list(self._live):
            self.delivery.end_unserved(job, not_ready("draining"))
        ended = self.worker.join(patience_s)
        self.delivery.close()
        self.log.close()
        self.catalog.close()
        self._images.cleanup()
        return ended


def new_request_id() -> str:
    """Return an id that names a request in the log and in file names."""
    return f"img-{secrets.token_hex(8)}"
