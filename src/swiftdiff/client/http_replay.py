"""Replays a trace against a server: sends each request when it is due and records what came of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx2

from swiftdiff.client.target import GENERATIONS, HttpTarget, open_client
from swiftdiff.client.wire import ServerAccount, WireError, decode_answer, decode_picture, encode_request
from swiftdiff.engine.arrivals import Arrival, schedule, starting_at, warmup_requests
from swiftdiff.engine.clock import Clock, RunClock
from swiftdiff.engine.options import ClosedLoad, ReplayOptions
from swiftdiff.engine.replay import MAX_ERROR_LENGTH, Observer, OpenTrace
from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.errors import RequestError, StorageError
from swiftdiff.request import ImageRequest, RequestRecord
from swiftdiff.telemetry.timeline import Timeline
from swiftdiff.telemetry.timeline_file import TimelineFile

# Requests under way; further ones wait in the client, which tables show. Each takes a connection, and
# processes may often open no more than 1,024 files.
MAX_UNDER_WAY = 500
RESTORE = "restore"


@dataclass
class _Exchange:
    """What came of a request so far. Moments are seconds of the run's clock.

    Attributes:
        arrival: The request and when it was due.
        warmup: Whether it is served to warm up.
        sent_s: When it was sent.
        received_s: When its answer was there.
        done_s: When its pictures were saved, or when it failed.
        account: What the server told about it.
        images: Paths of the pictures.
        size: Of the first picture.
        save_s: Seconds to decode and save the pictures.
        error: Why it failed.
        error_kind: What kind of failure that is.
    """

    arrival: Arrival
    warmup: bool
    sent_s: float
    received_s: float = 0.0
    done_s: float = 0.0
    account: ServerAccount | None = None
    images: tuple[str, ...] = ()
    size: tuple[int | None, int | None] = (None, None)
    save_s: float | None = None
    error: str | None = None
    error_kind: str | None = None


@dataclass(frozen=True)
class _Desk:
    """What one call of `HttpReplay.run` works with."""

    clock: RunClock
    client: httpx2.AsyncClient
    saver: Executor
    timeline: Timeline
    timeline_file: TimelineFile


class HttpReplay:
    """Sends requests in an open loop (or a closed one) and records each as it finishes.

    Nothing is tried again: a server that refuses under load is measured as one that refuses.

    Args:
        target: The server.
        folder: Gets pictures and records; requests that it has a record of are not sent again.
        images_root: Folder that control images are relative to.
        options: When requests arrive, and how many are sent.
        api_key: Sent as bearer token, or None.
        clock: The time.
        observe: Called with each record and the number of requests then under way.
    """

    def __init__(
        self,
        target: HttpTarget,
        folder: RunFolder,
        images_root: Path,
        options: ReplayOptions,
        *,
        api_key: str | None,
        clock: Clock,
        observe: Observer = lambda record, waiting: None,
    ) -> None:
        self._target = target
        self._folder = folder
        self._images_root = images_root
        self._options = options
        self._api_key = api_key
        self._clock = clock
        self._observe = observe
        self._under_way = 0

    async def run(self, open_trace: OpenTrace) -> None:
        """Send what the folder has no record of.

        Cancelling it drops the requests under way, without a record; their connections are closed.

        Raises:
            SwiftdiffError: Records or pictures cannot be written, or the trace cannot be read.
        """
        self._folder.drop_torn_record()
        done, end_s = self._folder.read_progress()
        clock = RunClock(self._clock, start_s=end_s)
        timeline = Timeline(clock.now)
        with (
            TimelineFile(self._folder.timeline_path, timeline) as timeline_file,
            ThreadPoolExecutor(1, thread_name_prefix="save") as saver,
        ):
            async with open_client(self._target, self._api_key) as client:
                desk = _Desk(clock, client, saver, timeline, timeline_file)
                for request in warmup_requests(open_trace(), self._options.num_warmups):
                    await self._exchange(Arrival(clock.now(), request), self._encode(request), desk, True)
                await self._send_all(open_trace, done, desk)

    async def _send_all(self, open_trace: OpenTrace, done: set[str], desk: _Desk) -> None:
        load = self._options.load
        closed = isinstance(load, ClosedLoad)
        places = asyncio.Semaphore(load.max_concurrency if isinstance(load, ClosedLoad) else MAX_UNDER_WAY)
        try:
            async with asyncio.TaskGroup() as tasks:
                for arrival in self._arrivals(open_trace, done, desk.clock):
                    await places.acquire()
                    due = Arrival(desk.clock.now(), arrival.request) if closed else arrival
                    message = self._encode(due.request)  # ahead of its time: latency has nothing of it
                    await asyncio.sleep(max(due.at_s - desk.clock.now(), 0.0))
                    task = tasks.create_task(self._exchange(due, message, desk, False))
                    task.add_done_callback(lambda _: places.release())
        except ExceptionGroup as group:  # of tasks: the first that could not write ends the others
            raise group.exceptions[0] from None

    def _arrivals(self, open_trace: OpenTrace, done: set[str], clock: RunClock) -> Iterator[Arrival]:
        load = self._options.load
        requests = itertools.islice(open_trace(), self._options.limit)
        if isinstance(load, ClosedLoad):
            return (Arrival(0.0, request) for request in requests if request.request_id not in done)
        missing = (each for each in schedule(requests, load) if each.request.request_id not in done)
        return starting_at(clock.now(), missing, resumed=bool(done))

    def _encode(self, request: ImageRequest) -> bytes | RequestError:
        try:
            return encode_request(request, self._images_root, self._target.model)
        except RequestError as error:
            return error

    async def _exchange(
        self, arrival: Arrival, message: bytes | RequestError, desk: _Desk, warmup: bool
    ) -> None:
        exchange = _Exchange(arrival, warmup, sent_s=desk.clock.now())
        self._under_way += 1
        try:
            await self._serve(exchange, message, desk)
        finally:
            self._under_way -= 1
        exchange.done_s = desk.clock.now()
        record = _record(exchange, self._options)
        self._folder.append_record(record)
        desk.timeline.add_request(
            record.request_id, record.status, record.scheduled_at_s, record.started_at_s, record.finished_at_s
        )
        desk.saver.submit(desk.timeline_file.flush)
        self._observe(record, self._under_way)

    async def _serve(self, exchange: _Exchange, message: bytes | RequestError, desk: _Desk) -> None:
        """Send a request and save its pictures; a failure is noted."""
        request = exchange.arrival.request
        try:
            if isinstance(message, RequestError):
                raise message
            response = await desk.client.post(
                GENERATIONS, content=message, headers={"Content-Type": "application/json"}
            )
            exchange.received_s = desk.clock.now()
            status, content = response.status_code, response.content
            save = _Save(exchange, status, content, request, self._folder, desk.clock.now)
            await asyncio.get_running_loop().run_in_executor(desk.saver, save)
        except (httpx2.HTTPError, WireError, RequestError, StorageError) as error:
            exchange.received_s = exchange.received_s or desk.clock.now()
            exchange.error = str(error) or f"the connection failed ({type(error).__name__})"
            exchange.error_kind = error.kind if isinstance(error, WireError) else type(error).__name__


@dataclass(frozen=True)
class _Save:
    """Decodes an answer and saves its pictures, on a thread beside the one that sends."""

    exchange: _Exchange
    status: int
    content: bytes
    request: ImageRequest
    folder: RunFolder
    now: Callable[[], float]

    def __call__(self) -> None:
        began_s = self.now()
        files, self.exchange.account = decode_answer(self.status, self.content, self.request.num_images)
        pictures = [decode_picture(file) for file in files]
        self.exchange.size = pictures[0].size
        self.exchange.images = self.folder.save_images(self.request, pictures, warmup=self.exchange.warmup)
        self.exchange.save_s = self.now() - began_s


def _record(exchange: _Exchange, options: ReplayOptions) -> RequestRecord:
    request, account = exchange.arrival.request, exchange.account
    scheduled_s = exchange.arrival.at_s
    client_wait_s = exchange.sent_s - scheduled_s
    queue_wait_s = client_wait_s + (0.0 if account is None else account.queue_wait_s)
    latency_s = exchange.done_s - scheduled_s
    slo_ms = options.slo_ms if options.slo_ms is not None else request.slo_ms
    is_ok = exchange.error is None
    return RequestRecord(
        request_id=request.request_id,
        status="ok" if is_ok else "failed",
        error=exchange.error[:MAX_ERROR_LENGTH] if exchange.error is not None else None,
        error_kind=exchange.error_kind,
        warmup=exchange.warmup,
        scheduled_at_s=scheduled_s,
        started_at_s=scheduled_s + queue_wait_s,
        finished_at_s=exchange.done_s,
        queue_wait_s=queue_wait_s,
        client_wait_s=client_wait_s,
        latency_s=latency_s,
        stages=_stages(exchange, latency_s - queue_wait_s),
        num_images=request.num_images,
        num_inference_steps=request.num_inference_steps,
        width=exchange.size[0] or request.width,
        height=exchange.size[1] or request.height,
        controlnets=tuple(use.id for use in request.controlnets),
        loras=tuple(use.id for use in request.loras),
        images=exchange.images,
        bytes_loaded=0 if account is None else sum(each.bytes_loaded for each in account.adapters),
        adapters=() if account is None else account.adapters,
        slo_ms=slo_ms,
        slo_met=None if slo_ms is None else is_ok and latency_s * 1000 <= slo_ms,
    )


def _stages(exchange: _Exchange, service_s: float) -> dict[str, float]:
    """Return what ``service_s`` was spent on: the server's stages if it tells them, and this side's."""
    trip_s = exchange.received_s - exchange.sent_s
    if exchange.account is None:
        stages = {"server": trip_s}
    else:
        stages = dict(exchange.account.stages)
        served_s = sum(seconds for name, seconds in stages.items() if name != RESTORE)
        stages["http"] = trip_s - exchange.account.queue_wait_s - served_s
    if exchange.save_s is not None:
        stages["image_save"] = stages.get("image_save", 0.0) + exchange.save_s
    spent_s = sum(seconds for name, seconds in stages.items() if name != RESTORE)
    stages["other"] = stages.get("other", 0.0) + service_s - spent_s
    return stages
