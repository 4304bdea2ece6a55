"""Replays a trace through a system: the loop from arrival to record."""

from __future__ import annotations

import itertools
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from swiftdiff.engine.arrivals import Arrival, schedule, starting_at, warmup_requests
from swiftdiff.engine.clock import Clock, RunClock
from swiftdiff.engine.interrupt import Interrupts
from swiftdiff.engine.options import ClosedLoad, ReplayOptions
from swiftdiff.engine.queue import ClosedQueue, OpenQueue, RequestQueue
from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.errors import SwiftdiffError
from swiftdiff.request import ImageRequest, RequestRecord, validate_servable
from swiftdiff.systems.base import Served, ServingSystem
from swiftdiff.telemetry.timeline import Timeline
from swiftdiff.telemetry.timeline_file import TimelineFile

MAX_ERROR_LENGTH = 500

OpenTrace = Callable[[], Iterable[ImageRequest]]
Observer = Callable[[RequestRecord, int], None]


Pictures = list[Image] | Callable[[], list[Image]]


@dataclass
class _Attempt:
    """What came of trying to serve a request so far; one thread at a time has it."""

    arrival: Arrival
    warmup: bool
    started_s: float
    size: tuple[int | None, int | None]
    served: Served | None = None
    handed_over_s: float = 0.0  # when the system was free again, but for the restore
    restore_s: float = 0.0
    images: tuple[str, ...] = ()
    save_s: float | None = None
    finished_s: float = 0.0
    error: str | None = None
    error_kind: str | None = None


@dataclass(frozen=True)
class _Desk:
    """What one call of `Replay.run` works with."""

    clock: RunClock
    interrupts: Interrupts
    deliverer: Executor
    timeline: Timeline
    timeline_file: TimelineFile


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
        # Records come from the serving thread and from the one that delivers.
        self._record_lock = threading.Lock()

    def run(self, open_trace: OpenTrace, interrupts: Interrupts) -> None:
        """Serve what the folder has no record of.

        Args:
            open_trace: Reads the trace from its start each time it is called.
            interrupts: Entered by the caller; Ctrl-C leaves everything that finished on disk.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            SwiftdiffError: Records cannot be written, or the model cannot be brought back.
        """
        self._folder.drop_torn_record()
        done, end_s = self._folder.read_progress()
        clock = RunClock(self._clock, start_s=end_s)
        timeline = Timeline(clock.now)
        timeline.name_track("server")
        # Ends deliveries that are under way also when the block is left by Ctrl-C.
        with (
            TimelineFile(self._folder.timeline_path, timeline) as timeline_file,
            ThreadPoolExecutor(1, thread_name_prefix="deliver") as deliverer,
        ):
            desk = _Desk(clock, interrupts, deliverer, timeline, timeline_file)
            self._system.record_to(timeline)
            for request in warmup_requests(open_trace(), self._options.num_warmups):
                self._serve(Arrival(clock.now(), request), desk, warmup=True).result()
            self._serve_all(self._make_queue(open_trace, done, clock), desk)
        if timeline_file.failure is not None:
            self._folder.append_traceback(f"{self._folder.timeline_path}: {timeline_file.failure}")

    def _serve_all(self, queue: RequestQueue, desk: _Desk) -> None:
        self._system.watch(queue.upcoming)
        under_way: deque[Future[RequestRecord]] = deque()
        while True:
            arrival = queue.take()
            if arrival is not None:
                under_way.append(self._serve(arrival, desk, warmup=False))
            elif under_way:  # whoever gets this one may ask for another before the rest are delivered
                self._conclude(under_way.popleft(), queue)
            else:
                return
            while under_way and under_way[0].done():
                self._conclude(under_way.popleft(), queue)

    def _conclude(self, delivery: Future[RequestRecord], queue: RequestQueue) -> None:
        record = delivery.result()
        queue.release(record.finished_at_s)
        self._observe(record, queue.waiting())

    def _make_queue(self, open_trace: OpenTrace, done: set[str], clock: RunClock) -> RequestQueue:
        load = self._options.load
        requests = itertools.islice(open_trace(), self._options.limit)
        if isinstance(load, ClosedLoad):
            missing = (request for request in requests if request.request_id not in done)
            return ClosedQueue(missing, load.max_concurrency, clock)
        arrivals = (each for each in schedule(requests, load) if each.request.request_id not in done)
        return OpenQueue(starting_at(clock.now(), arrivals, resumed=bool(done)), clock)

    def _serve(self, arrival: Arrival, desk: _Desk, *, warmup: bool) -> Future[RequestRecord]:
        """Serve a request and restore the model; the record comes when the pictures are saved."""
        request, clock = arrival.request, desk.clock
        attempt = _Attempt(arrival, warmup, clock.now(), (request.width, request.height))
        desk.timeline.tell({"request_id": request.request_id})
        pictures = self._begin(attempt, desk)
        if callable(pictures):
            with desk.interrupts.hold():
                try:
                    self._finish(attempt, desk)
                finally:
                    delivery = desk.deliverer.submit(self._deliver, pictures, attempt, desk)
            return delivery
        self._save(pictures, attempt, desk)
        with desk.interrupts.hold():  # a picture that is saved gets its record
            try:
                self._finish(attempt, desk)
            finally:
                record = self._append_record(attempt, desk.timeline)
                desk.deliverer.submit(desk.timeline_file.flush)
        return _known(record)

    def _begin(self, attempt: _Attempt, desk: _Desk) -> Pictures:
        """Let the system serve a request; a failure is noted, and no pictures come of it."""
        pictures: Pictures = []
        with self._noting_failure(attempt):
            validate_servable(attempt.arrival.request)
            with desk.timeline.span("serve"):
                attempt.served = self._system.serve(attempt.arrival.request, self._images_root)
            pictures = attempt.served.images
        attempt.handed_over_s = desk.clock.now()
        return pictures

    def _finish(self, attempt: _Attempt, desk: _Desk) -> None:
        began_s = desk.clock.now()
        try:
            with desk.timeline.span("restore"):
                self._system.finish()
        finally:
            attempt.restore_s = desk.clock.now() - began_s

    def _deliver(self, pictures: Pictures, attempt: _Attempt, desk: _Desk) -> RequestRecord:
        self._save(pictures, attempt, desk)
        record = self._append_record(attempt, desk.timeline)
        desk.timeline_file.flush()
        return record

    def _save(self, pictures: Pictures, attempt: _Attempt, desk: _Desk) -> None:
        """Save a request's pictures, if it came to any."""
        clock = desk.clock
        with self._noting_failure(attempt):
            images = pictures() if callable(pictures) else pictures
            if images:
                attempt.size = images[0].size
                began_s = clock.now()
                request = attempt.arrival.request
                attempt.images = self._folder.save_images(request, images, warmup=attempt.warmup)
                ended_s = clock.now()
                attempt.save_s = ended_s - began_s
                desk.timeline.add("image_save", began_s, ended_s, {"request_id": request.request_id})
        attempt.finished_s = clock.now()
        if not callable(pictures):
            attempt.handed_over_s = attempt.finished_s

    @contextmanager
    def _noting_failure(self, attempt: _Attempt) -> Iterator[None]:
        try:
            yield
        except SwiftdiffError as error:
            attempt.error, attempt.error_kind = str(error), type(error).__name__
        except Exception as error:  # whatever goes wrong with one request, the others go on
            attempt.error, attempt.error_kind = str(error) or repr(error), type(error).__name__
            request_id = attempt.arrival.request.request_id
            self._folder.append_traceback(f"request {request_id}:\n{traceback.format_exc()}")

    def _append_record(self, attempt: _Attempt, timeline: Timeline) -> RequestRecord:
        record = self._make_record(attempt)
        with self._record_lock:
            self._folder.append_record(record)
        timeline.add_request(
            record.request_id,
            record.status,
            record.scheduled_at_s,
            record.started_at_s,
            record.finished_at_s,
        )
        return record

    def _make_record(self, attempt: _Attempt) -> RequestRecord:
        request, served = attempt.arrival.request, attempt.served
        scheduled_s, started_s, finished_s = attempt.arrival.at_s, attempt.started_s, attempt.finished_s
        stages = {} if served is None else dict(served.stages)
        if attempt.save_s is not None:
            stages["image_save"] = attempt.save_s
        stages["other"] = finished_s - started_s - sum(stages.values())
        stages["restore"] = attempt.restore_s
        latency_s = finished_s - scheduled_s
        slo_ms = self._options.slo_ms if self._options.slo_ms is not None else request.slo_ms
        is_ok = attempt.error is None
        busy_s = attempt.handed_over_s - started_s + attempt.restore_s
        return RequestRecord(
            request_id=request.request_id,
            status="ok" if is_ok else "failed",
            error=attempt.error[:MAX_ERROR_LENGTH] if attempt.error is not None else None,
            error_kind=attempt.error_kind,
            warmup=attempt.warmup,
            scheduled_at_s=scheduled_s,
            started_at_s=started_s,
            finished_at_s=finished_s,
            queue_wait_s=started_s - scheduled_s,
            latency_s=latency_s,
            stages=stages,
            num_images=request.num_images,
            num_inference_steps=request.num_inference_steps,
            width=attempt.size[0],
            height=attempt.size[1],
            controlnets=tuple(use.id for use in request.controlnets),
            loras=tuple(use.id for use in request.loras),
            images=attempt.images,
            bytes_loaded=0 if served is None else served.bytes_loaded,
            adapters=() if served is None else served.adapters,
            latent_cache=None if served is None else served.latent_cache,
            graphs_captured=None if served is None else served.graphs_captured,
            device_seconds=busy_s * self._system.num_devices,
            slo_ms=slo_ms,
            slo_met=None if slo_ms is None else is_ok and latency_s * 1000 <= slo_ms,
        )


def _known(record: RequestRecord) -> Future[RequestRecord]:
    future: Future[RequestRecord] = Future()
    future.set_result(record)
    return future
