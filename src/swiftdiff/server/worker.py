"""Owns the one thread that serves: it makes the system, takes jobs, and brings the model back after each."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from swiftdiff.engine.clock import Clock
from swiftdiff.server.delivery import Delivery, Outcome
from swiftdiff.server.job import Job
from swiftdiff.server.metrics import Metrics
from swiftdiff.server.stock import StockBeside
from swiftdiff.server.waiting_room import WaitingRoom
from swiftdiff.systems.base import Preview, ServingSystem

LOGGER = logging.getLogger("swiftdiff.server")

State = Literal["loading", "ok", "draining", "failed"]


class Worker:
    """Serves jobs one after another.

    Args:
        build: Makes the system, on the worker's thread.
        stock: Serves jobs that ask for stock diffusers.
        room: Where jobs wait.
        delivery: Answers them.
        metrics: Count what happens after an answer.
        images_root: Folder of control images.
        clock: The time.
        on_change: Called when `state` has changed, from the worker's thread.

    Attributes:
        state: ``loading`` until the system has warmed up; ``failed`` once it cannot serve any more.
        failure: Why it failed.
        current: The job in service.
        exactness: Of the system's pictures, once it is loaded.
        service_s: Seconds that a job takes, averaged over the last ones.
    """

    def __init__(
        self,
        build: Callable[[], ServingSystem],
        stock: StockBeside,
        room: WaitingRoom,
        delivery: Delivery,
        metrics: Metrics,
        *,
        images_root: Path,
        clock: Clock,
        on_change: Callable[[], None],
    ) -> None:
        self.state: State = "loading"
        self.failure: Exception | None = None
        self.current: Job | None = None
        self.service_s = 1.0
        self.exactness: Literal["exact", "approximate"] = "exact"
        self._build = build
        self._stock = stock
        self._room = room
        self._delivery = delivery
        self._metrics = metrics
        self._images_root = images_root
        self._clock = clock
        self._on_change = on_change
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        """Begin to load the system."""
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread, which ends once the room is closed and empty; tell whether it did."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def drain(self) -> None:
        """Serve what waits and then end."""
        if self.state in ("loading", "ok"):
            self.state = "draining"
        self._room.close()

    def _run(self) -> None:
        try:
            system = self._build()
            try:
                system.warm_up()
                self.exactness = system.exactness
                system.watch(self._room.upcoming)
                system.attend(self._before_step)
                if self.state == "loading":
                    self.state = "ok"
                self._on_change()
                self._serve_all(system)
            finally:
                self._stock.close()
                system.close()
        except Exception as error:
            self.state, self.failure = "failed", error
            self._delivery.flush()  # what was served before is answered
            self._on_change()

    def _serve_all(self, system: ServingSystem) -> None:
        while True:
            job = self._room.take_now()
            if job is None:
                # What stayed in the weights for a request that left meanwhile must go.
                system.finish()
                job = self._room.take()
                if job is None:
                    return
            if not job.is_over:
                self._serve(system, job)
            job.discard_files()

    def _serve(self, system: ServingSystem, job: Job) -> None:
        self.current = job
        job.started_s = began_s = self._clock.now()
        stock = job.engine is not None
        outcome = self._stock_outcome(job) if stock else self._outcome(system, job)
        self._delivery.end(job, outcome, 1 if stock else system.num_devices)
        handed_over_s = self._clock.now()
        if not stock:
            system.finish()
        ended_s = self._clock.now()
        self.current = None
        self._metrics.stage("restore", ended_s - handed_over_s)
        self.service_s += 0.2 * (ended_s - began_s - self.service_s)

    def _outcome(self, system: ServingSystem, job: Job) -> Outcome:
        _prepare(system, job)
        try:
            served = system.serve(job.request, self._images_root)
        except Exception as error:
            return Outcome(None, error, self._clock.now())
        return Outcome(served, None, self._clock.now())

    def _stock_outcome(self, job: Job) -> Outcome:
        try:
            served = self._stock.serve(job.request, self._images_root, self._before_step)
        except Exception as error:
            return Outcome(None, error, self._clock.now())
        return Outcome(served, None, self._clock.now())

    def _before_step(self, step: int, num_steps: int, preview: Preview) -> None:
        job = self.current
        if job is None:
            return
        job.check_wanted()
        index = job.partial_index(step, num_steps)
        if index is not None:
            self._delivery.show(job, index, step, num_steps, preview())


def _prepare(system: ServingSystem, job: Job) -> None:
    """Tell the engine what is its own: a job's switches, and how to stop waiting for its adapters."""
    if "swiftdiff.systems.swiftdiff" not in sys.modules:  # seconds to import, and another system serves
        return
    from swiftdiff.systems.swiftdiff import SwiftdiffSystem

    if isinstance(system, SwiftdiffSystem):
        system.switch(job.switches)
        job.wake = partial(system.give_up, job.request.request_id)
