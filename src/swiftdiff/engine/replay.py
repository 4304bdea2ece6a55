"""Replays a trace through a system: the loop from arrival to record."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from swiftdiff.engine.arrivals import Arrival, schedule
from swiftdiff.engine.clock import Clock, RunClock
from swiftdiff.engine.interrupt import Interrupts
from swiftdiff.engine.options import ClosedLoad, ReplayOptions
from swiftdiff.engine.queue import ClosedQueue, OpenQueue, RequestQueue
from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.errors import SwiftdiffError
from swiftdiff.request import ImageRequest, RequestRecord, validate_servable
from swiftdiff.systems.base import ServingSystem

MAX_ERROR_LENGTH = 500

OpenTrace = Callable[[], Iterable[ImageRequest]]
Observer = Callable[[RequestRecord, int], None]


@dataclass
class _Attempt:
    """What came of trying to serve a request."""

    stages: dict[str, float] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    size: tuple[int | None, int | None] = (None, None)
    bytes_loaded: int = 0
    error: str | None = None
    error_kind: str | None = None


class Replay:
    """Serves requests one after another and records each as it finishes.

    Args:
        system: Serves; used by the thread that calls `run` only.
        folder: Gets pictures and records; requests that it has a record of are not served again.
        images_root: Folder that control images are relative to.
        options: When requests arrive, and how many are served.
        clock: The time.
        observe: Called with each record and the number of requests then waiting.
    """

    def __init__(
        self,
        system: ServingSystem,
        folder: RunFolder,
        images_root: Path,
        options: ReplayOptions,
        *,
        clock: Clock,
        observe: Observer = lambda record, waiting: None,
    ) -> None:
        self._system = system
        self._folder = folder
        self._images_root = images_root
        self._options = options
        self._clock = clock
        self._observe = observe

    def run(self, open_trace: OpenTrace, interrupts: Interrupts) -> None:
        """Serve what the folder has no record of.

        Args:
            open_trace: Reads the trace from its start each time it is called.
            interrupts: Entered by the caller; Ctrl-C leaves everything that finished on disk.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            SwiftdiffError: Records cannot be written, or the model cannot be brought back.
        """
        done, end_s = self._read_progress()
        clock = RunClock(self._clock, start_s=end_s)
        for request in _warmup_requests(open_trace, self._options.num_warmups):
            self._serve(Arrival(clock.now(), request), clock, interrupts, warmup=True)
        queue = self._make_queue(open_trace, done, clock)
        while (arrival := queue.take()) is not None:
            record = self._serve(arrival, clock, interrupts, warmup=False)
            queue.release(record.finished_at_s)
            self._observe(record, queue.waiting())

    def _read_progress(self) -> tuple[set[str], float]:
        """Return the ids that were served in earlier sessions, and when the last of these ended."""
        self._folder.drop_torn_record()
        done: set[str] = set()
        end_s = 0.0
        for record in self._folder.read_records():
            end_s = max(end_s, record.finished_at_s)
            if not record.warmup:
                done.add(record.request_id)
        return done, end_s

    def _make_queue(self, open_trace: OpenTrace, done: set[str], clock: RunClock) -> RequestQueue:
        load = self._options.load
        requests = itertools.islice(open_trace(), self._options.limit)
        if isinstance(load, ClosedLoad):
            missing = (request for request in requests if request.request_id not in done)
            return ClosedQueue(missing, load.max_concurrency, clock)
        arrivals = (each for each in schedule(requests, load) if each.request.request_id not in done)
        return OpenQueue(_starting_at(clock.now(), arrivals, resumed=bool(done)), clock)

    def _serve(
        self, arrival: Arrival, clock: RunClock, interrupts: Interrupts, *, warmup: bool
    ) -> RequestRecord:
        """Serve a request, restore the model, and record both."""
        started_s = clock.now()
        attempt = self._attempt(arrival.request, clock, warmup=warmup)
        finished_s = clock.now()
        with interrupts.hold():  # a picture that is saved gets its record
            attempt.stages["other"] = finished_s - started_s - sum(attempt.stages.values())
            try:
                self._system.finish()
            finally:
                restored_s = clock.now()
                attempt.stages["restore"] = restored_s - finished_s
                times = (arrival.at_s, started_s, finished_s, restored_s)
                record = self._make_record(arrival.request, attempt, times, warmup=warmup)
                self._folder.append_record(record)
        return record

    def _attempt(self, request: ImageRequest, clock: RunClock, *, warmup: bool) -> _Attempt:
        attempt = _Attempt(size=(request.width, request.height))
        try:
            validate_servable(request)
            served = self._system.serve(request, self._images_root)
            attempt.stages.update(served.stages)
            attempt.bytes_loaded = served.bytes_loaded
            attempt.size = served.images[0].size
            began_s = clock.now()
            attempt.images = self._folder.save_images(request, served.images, warmup=warmup)
            attempt.stages["image_save"] = clock.now() - began_s
        except SwiftdiffError as error:
            attempt.error, attempt.error_kind = str(error), type(error).__name__
        except Exception as error:  # whatever goes wrong with one request, the others go on
            attempt.error, attempt.error_kind = str(error) or repr(error), type(error).__name__
            self._folder.append_traceback(f"request {request.request_id}:\n{traceback.format_exc()}")
        return attempt

    def _make_record(
        self,
        request: ImageRequest,
        attempt: _Attempt,
        times: tuple[float, float, float, float],
        *,
        warmup: bool,
    ) -> RequestRecord:
        scheduled_s, started_s, finished_s, restored_s = times
        latency_s = finished_s - scheduled_s
        slo_ms = self._options.slo_ms if self._options.slo_ms is not None else request.slo_ms
        is_ok = attempt.error is None
        return RequestRecord(
            request_id=request.request_id,
            status="ok" if is_ok else "failed",
            error=attempt.error[:MAX_ERROR_LENGTH] if attempt.error is not None else None,
            error_kind=attempt.error_kind,
            warmup=warmup,
            scheduled_at_s=scheduled_s,
            started_at_s=started_s,
            finished_at_s=finished_s,
            queue_wait_s=started_s - scheduled_s,
            latency_s=latency_s,
            stages=attempt.stages,
            num_images=request.num_images,
            num_inference_steps=request.num_inference_steps,
            width=attempt.size[0],
            height=attempt.size[1],
            controlnets=tuple(use.id for use in request.controlnets),
            loras=tuple(use.id for use in request.loras),
            images=attempt.images,
            bytes_loaded=attempt.bytes_loaded,
            device_seconds=(restored_s - started_s) * self._system.num_devices,
            slo_ms=slo_ms,
            slo_met=None if slo_ms is None else is_ok and latency_s * 1000 <= slo_ms,
        )


def _warmup_requests(open_trace: OpenTrace, count: int) -> Iterator[ImageRequest]:
    """Yield the trace's first requests, from its start again if it has fewer than ``count``."""
    first = list(itertools.islice(open_trace(), count))
    return itertools.islice(itertools.cycle(first), count)


def _starting_at(now_s: float, arrivals: Iterator[Arrival], *, resumed: bool) -> Iterator[Arrival]:
    """Move arrivals to the run's clock: time 0 of the load is now.

    A resumed load begins with the first request that is missing: what the interruption left waiting is not
    charged for the time in which nothing ran.
    """
    shift_s = now_s
    for index, arrival in enumerate(arrivals):
        if index == 0 and resumed:
            shift_s = now_s - arrival.at_s
        yield Arrival(arrival.at_s + shift_s, arrival.request)
