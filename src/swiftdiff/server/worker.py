"""Owns the one thread that serves: it makes the system, takes jobs, and brings the model back after them."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Literal

from swiftdiff.engine.clock import Clock
from swiftdiff.errors import SwiftdiffError
from swiftdiff.server.batching import BatchPlanner
from swiftdiff.server.delivery import Delivery, Outcome
from swiftdiff.server.job import Job
from swiftdiff.server.metrics import Metrics
from swiftdiff.server.stock import StockBeside
from swiftdiff.server.waiting_room import WaitingRoom
from swiftdiff.systems.base import BatchingSystem, Preview, Served, ServingSystem

LOGGER = logging.getLogger("swiftdiff.server")

# Stages that say nothing of how fast a batch of some size is.
_APART = ("lora_wait", "controlnet_wait", "preview")

State = Literal["loading", "ok", "draining", "failed"]


class Worker:
    """Serves jobs one after another, or several as one batch.

    Args:
        build: Makes the system, on the worker's thread.
        stock: Serves jobs that ask for stock diffusers.
        room: Where jobs wait.
        delivery: Answers them.
        metrics: Count what happens after an answer.
        planner: Says which are served as one.
        images_root: Folder of control images.
        clock: The time.
        on_change: Called when `state` has changed, from the worker's thread.

    Attributes:
        state: ``loading`` until the system has warmed up; ``failed`` once it cannot serve any more.
        failure: Why it failed.
        in_service: The jobs in service.
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
        planner: BatchPlanner,
        images_root: Path,
        clock: Clock,
        on_change: Callable[[], None],
    ) -> None:
        self.state: State = "loading"
        self.failure: Exception | None = None
        self.in_service: tuple[Job, ...] = ()
        self.service_s = 1.0
        self.exactness: Literal["exact", "approximate"] = "exact"
        self._build = build
        self._stock = stock
        self._room = room
        self._planner = planner
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
            jobs = [job]
            if isinstance(system, BatchingSystem):
                jobs += self._room.take_along(job, self._planner)
            wanted = [each for each in jobs if not each.is_over]
            if wanted:
                self._serve(system, wanted)
            for each in jobs:
                each.discard_files()

    def _serve(self, system: ServingSystem, jobs: Sequence[Job]) -> None:
        """Serve jobs as one; if nothing comes of several, each of them alone."""
        began_s = self._clock.now()
        for job in jobs:
            job.started_s = began_s if job.started_s is None else job.started_s
        self.in_service = tuple(jobs)
        try:
            results = self._results(system, jobs)
        except Exception as error:
            if len(jobs) > 1:
                self._serve_apart(system, jobs, error)
                return
            results = [error]
        is_stock = jobs[0].engine is not None
        self._deliver(jobs, results, num_devices=1 if is_stock else system.num_devices)
        handed_over_s = self._clock.now()
        if not is_stock:
            system.finish()
        ended_s = self._clock.now()
        self.in_service = ()
        self._metrics.stage("restore", ended_s - handed_over_s)
        self.service_s += 0.2 * ((ended_s - began_s) / len(jobs) - self.service_s)
        served = [result for result in results if isinstance(result, Served)]
        if served and not is_stock:
            apart_s = sum(served[0].stages.get(name, 0.0) for name in _APART)
            self._planner.note(jobs, ended_s - began_s - apart_s)

    def _serve_apart(self, system: ServingSystem, jobs: Sequence[Job], error: Exception) -> None:
        system.finish()
        if not isinstance(error, SwiftdiffError | CancelledError):  # these are not about the batch's size
            LOGGER.warning("a batch of %d requests failed; each is served alone", len(jobs), exc_info=error)
            self._planner.note_failure(jobs)
        for job in jobs:
            if not job.is_over:
                self._serve(system, [job])
        self.in_service = ()

    def _results(self, system: ServingSystem, jobs: Sequence[Job]) -> list[Served | Exception]:
        first = jobs[0]
        if first.engine is not None:
            first.stages = partial(self._stock.stages_so_far, first.request.request_id)
            return [self._stock.serve(first.request, self._images_root, partial(self._before_step, first))]
        _prepare(system, jobs)
        if isinstance(system, BatchingSystem):
            requests = [job.request for job in jobs]
            on_steps = [partial(self._before_step, job) for job in jobs]
            return system.serve_batch(requests, self._images_root, on_steps)
        system.attend(partial(self._before_step, first))
        return [system.serve(first.request, self._images_root)]

    def _deliver(
        self, jobs: Sequence[Job], results: Sequence[Served | Exception], *, num_devices: int
    ) -> None:
        handed_over_s = self._clock.now()
        num_pictures = sum(job.request.num_images for job in jobs)
        self._metrics.batch(num_pictures)
        for job, result in zip(jobs, results, strict=True):
            served = result if isinstance(result, Served) else None
            error = result if isinstance(result, Exception) else None
            if served is not None:
                job.stages = partial(dict, served.stages)
            else:
                job.stages = partial(dict, job.stages())
            share = num_devices * job.request.num_images / num_pictures
            self._delivery.end(job, Outcome(served, error, handed_over_s, share, len(jobs)))

    def _before_step(self, job: Job, step: int, num_steps: int, preview: Preview) -> None:
        job.check_wanted()
        index = job.partial_index(step, num_steps)
        if index is not None:
            self._delivery.show(job, index, step, num_steps, preview())


def _prepare(system: ServingSystem, jobs: Sequence[Job]) -> None:
    """Tell the engine what is its own: the jobs' switches, and how to stop waiting for adapters."""
    for job in jobs:
        job.stages = partial(system.stages_so_far, job.request.request_id)
    if "swiftdiff.systems.swiftdiff" not in sys.modules:  # seconds to import, and another system serves
        return
    from swiftdiff.systems.swiftdiff import SwiftdiffSystem

    if isinstance(system, SwiftdiffSystem):
        system.switch(jobs[0].switches)
        for job in jobs:
            job.wake = partial(system.give_up, job.request.request_id)
            if job.is_over:  # since a moment ago: who ended it may have called what was there before
                job.wake()
