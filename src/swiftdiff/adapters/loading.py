"""Loads adapters beside the computation: each is read once, kept in a cache, retried if its store fails."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Literal, Self, TypeVar

from swiftdiff.adapters.residency import AdapterCache, CacheStats
from swiftdiff.adapters.store import StoreUnavailableError
from swiftdiff.telemetry.timeline import OFF, Details, Timeline

T = TypeVar("T")


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """What a read gives.

    Attributes:
        value: The adapter, ready for use.
        num_bytes: Memory it takes in the cache.
        bytes_read: Bytes that came from the store.
        fetch_s: Seconds until its files were local.
        prepare_s: Seconds from there until it was ready.
    """

    value: T
    num_bytes: int
    bytes_read: int
    fetch_s: float
    prepare_s: float


@dataclass(frozen=True)
class LoadTiming:
    """How one load went.

    Attributes:
        source: ``cache``: it was in memory; ``store``: this load read it; ``shared``: another load was
            reading it already.
        bytes_read: Bytes from the store on this load's account: 0 unless it is ``store``.
        load_s: Seconds from the call of `AdapterLoader.load` until it was ready.
        fetch_s: Of these, seconds until its files were local.
        prepare_s: Seconds from there until it was ready.
        attempts: Reads begun, failed ones included; 0 from the cache.
    """

    source: Literal["cache", "store", "shared"]
    bytes_read: int
    load_s: float
    fetch_s: float = 0.0
    prepare_s: float = 0.0
    attempts: int = 0


@dataclass(frozen=True)
class RetryPolicy:
    """How often a store that does not answer is asked again.

    Attributes:
        attempts: Reads at most.
        backoff_s: Seconds before the second read; doubled before each further one.
    """

    attempts: int = 3
    backoff_s: float = 0.1


class LoadHandle(Generic[T]):
    """One request's claim on one adapter. Release it when the request is done: it is a context manager."""

    def __init__(self, adapter_id: str, release: Callable[[LoadHandle[T]], None]) -> None:
        self.adapter_id = adapter_id
        self._future: Future[tuple[T, LoadTiming]] = Future()
        self._release = release

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def ready(self) -> bool:
        """Whether the load has ended, well or not: `result` will not wait."""
        return self._future.done()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the load to end and return whether it has."""
        with contextlib.suppress(TimeoutError, CancelledError):
            self._future.exception(timeout_s)
        return self.ready()

    def result(self, timeout_s: float | None = None) -> T:
        """Return the adapter; waits for it.

        Raises:
            AdapterError: It could not be loaded; the message says why.
            TimeoutError: It is not here after ``timeout_s``.
            CancelledError: The handle was released or the loader closed.
        """
        return self._future.result(timeout_s)[0]

    @property
    def timing(self) -> LoadTiming | None:
        """How the load went; None until it has ended well."""
        ended_well = self.ready() and not self._future.cancelled() and self._future.exception() is None
        return self._future.result()[1] if ended_well else None

    def release(self) -> None:
        """Give the adapter back, or give the load up: one that nobody waits for is not begun nor retried."""
        self._release(self)

    def settle(self, outcome: tuple[T, LoadTiming] | BaseException) -> None:
        """End the load; the loader calls this."""
        if not self._future.set_running_or_notify_cancel():
            return
        if isinstance(outcome, BaseException):
            self._future.set_exception(outcome)
        else:
            self._future.set_result(outcome)

    def abandon(self) -> None:
        """Wake who waits with CancelledError, unless the load has ended; the loader calls this."""
        self._future.cancel()


class _Job(Generic[T]):
    """One read under way and the handles that wait for it, in the order in which they asked."""

    def __init__(self, about: Details) -> None:
        self.about = about
        self.waiting: dict[LoadHandle[T], float] = {}  # and when each asked
        self.unwanted = threading.Event()  # set while nobody waits: ends the pause before a retry
        self.task: Future[None] | None = None


class AdapterLoader(Generic[T]):
    """Loads adapters on threads of its own. It never touches a model: who owns the weights patches them.

    Args:
        read: Brings an adapter from the store into memory; called on a loader thread. Whatever it raises
            fails the requests that wait for it; `StoreUnavailableError` is tried again first.
        cache: Keeps what was read; only this loader may use it.
        max_concurrent: Reads at one time.
        retry: For stores that do not answer.
        kind: What it loads, for the timeline and the names of threads.
        clock: Seconds from any moment.

    Attributes:
        timeline: Gets a span for each read, about what the thread that first asked for it was at.
    """

    def __init__(
        self,
        read: Callable[[str], Loaded[T]],
        cache: AdapterCache[T],
        *,
        max_concurrent: int = 4,
        retry: RetryPolicy | None = None,
        kind: str = "adapter",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.timeline: Timeline = OFF
        self._kind = kind
        self._read = read
        self._cache = cache
        self._retry = retry or RetryPolicy()
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job[T]] = {}
        self._held: set[LoadHandle[T]] = set()
        self._closed = False
        self._pool = ThreadPoolExecutor(max_concurrent, thread_name_prefix=f"swiftdiff-load {kind}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def stats(self) -> CacheStats:
        """Counts of the cache."""
        with self._lock:
            return self._cache.stats

    def load(self, adapter_id: str) -> LoadHandle[T]:
        """Begin to load an adapter and return at once; from the cache it is ready at once.

        Raises:
            RuntimeError: The loader is closed.
        """
        began = self._clock()
        handle = LoadHandle(adapter_id, self._release)
        with self._lock:
            if self._closed:
                raise RuntimeError("the adapter loader is closed")
            value = self._cache.pin(adapter_id)
            if value is not None:
                self._held.add(handle)
                handle.settle((value, LoadTiming("cache", 0, self._clock() - began)))
                return handle
            job = self._jobs.get(adapter_id)
            if job is None:
                job = self._jobs[adapter_id] = _Job({**self.timeline.context, "adapter": adapter_id})
                job.task = self._pool.submit(self._run, adapter_id, job)
            job.waiting[handle] = began
            job.unwanted.clear()
        return handle

    def close(self) -> None:
        """Give up all loads and forget all adapters; returns when the reads under way have ended."""
        with self._lock:
            self._closed = True
            for job in self._jobs.values():
                for handle in job.waiting:
                    handle.abandon()
                job.waiting.clear()
                job.unwanted.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            self._jobs.clear()
            self._held.clear()
            self._cache.clear()

    def _release(self, handle: LoadHandle[T]) -> None:
        with self._lock:
            if handle in self._held:
                self._held.discard(handle)
                self._cache.unpin(handle.adapter_id)
                return
            handle.abandon()
            job = self._jobs.get(handle.adapter_id)
            if job is None or job.waiting.pop(handle, None) is None or job.waiting:
                return
            job.unwanted.set()
            if job.task is not None and job.task.cancel():  # it had not begun
                del self._jobs[handle.adapter_id]

    def _run(self, adapter_id: str, job: _Job[T]) -> None:
        attempts = 0
        while True:
            attempts += 1
            try:
                loaded = self._read_timed(adapter_id, job.about)
            except StoreUnavailableError as error:
                if attempts < self._retry.attempts:
                    job.unwanted.wait(self._retry.backoff_s * 2 ** (attempts - 1))
                    if self._is_wanted(adapter_id, job):
                        continue
                    return
                self._fail(adapter_id, job, error)
            except BaseException as error:
                self._fail(adapter_id, job, error)
            else:
                self._finish(adapter_id, job, loaded, attempts)
            return

    def _read_timed(self, adapter_id: str, about: Details) -> Loaded[T]:
        timeline = self.timeline
        began_s = timeline.now()
        try:
            loaded = self._read(adapter_id)
        finally:
            timeline.add(f"{self._kind}_load", began_s, timeline.now(), about)
        timeline.add("fetch", began_s, began_s + loaded.fetch_s, about)
        return loaded

    def _is_wanted(self, adapter_id: str, job: _Job[T]) -> bool:
        """Whether anybody waits (who had asked first may be gone); if not, the job ends here."""
        with self._lock:
            if not job.waiting:
                self._jobs.pop(adapter_id, None)
            return bool(job.waiting)

    def _fail(self, adapter_id: str, job: _Job[T], error: BaseException) -> None:
        with self._lock:
            self._jobs.pop(adapter_id, None)
            for handle in job.waiting:
                handle.settle(error)

    def _finish(self, adapter_id: str, job: _Job[T], loaded: Loaded[T], attempts: int) -> None:
        with self._lock:
            self._jobs.pop(adapter_id, None)
            if self._closed:
                return
            self._cache.put(adapter_id, loaded.value, loaded.num_bytes, pins=len(job.waiting))
            now = self._clock()
            for index, (handle, began) in enumerate(job.waiting.items()):
                mine = index == 0
                timing = LoadTiming(
                    "store" if mine else "shared",
                    loaded.bytes_read if mine else 0,
                    now - began,
                    loaded.fetch_s,
                    loaded.prepare_s,
                    attempts,
                )
                self._held.add(handle)
                handle.settle((loaded.value, timing))
