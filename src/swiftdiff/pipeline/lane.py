"""Owns where and how things compute: a lane is a device, a stream or thread count, and one worker thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import torch

from swiftdiff.errors import ConfigError
from swiftdiff.pipeline.captured import no_capture
from swiftdiff.telemetry.timeline import NOTHING, OFF, Details, Timeline, span_name

Result = TypeVar("Result")


class LaneFuture(Generic[Result]):
    """What a lane will have computed.

    On a GPU `result` returns as soon as the work is queued there: the caller's stream, not its thread, waits.

    Attributes:
        lane: The lane that computes it.
        name: How the timeline calls the work.
        about: What the work is about.
    """

    def __init__(self, lane: Lane, name: str = "", about: Details = NOTHING) -> None:
        self.lane = lane
        self.name = name
        self.about = about
        self._future: Future[Result] = Future()
        self._done_on_device: torch.cuda.Event | None = None

    def result(self) -> Result:
        """Return the value, ready for the calling thread's current stream.

        Raises:
            Exception: What the work raised, with the lane's traceback.
            CancelledError: It was cancelled before it began.
        """
        value = self._future.result()
        if self._done_on_device is not None:
            stream = torch.cuda.current_stream(self.lane.device)
            stream.wait_event(self._done_on_device)
            _keep_until_used(value, stream)
        return value

    def cancel(self) -> bool:
        """Drop the work if it has not begun; return whether it will never run."""
        return self._future.cancel()

    def wait(self) -> None:
        """Wait until the work has ended in any way; what it raised stays in `result`."""
        if not self._future.cancelled():
            self._future.exception()


class Lane:
    """A place that computes one piece of work at a time, in the order given, under `torch.inference_mode`.

    A lane on a GPU has a stream. It reads tensors of other GPUs by peer copies, which wait on the devices and
    not on the host for what they copy.

    Args:
        device: ``cpu``, ``cpu:<n>`` (the number only tells lanes apart), ``cuda`` or ``cuda:<n>``.
        num_threads: Intra-op threads of a CPU lane; None keeps torch's own number.
        role: What it is for, where other lanes have its device too; its thread is called by it.
        clock: Seconds from any moment, for `waited_s`.

    Attributes:
        name: The device as it was written.
        device: Where the lane's tensors live.
        waited_s: Seconds that the worker has waited for other lanes' results; between GPUs streams wait, and
            the worker only until that is queued.
        timeline: Gets a span for each piece of work, about what the submitting thread is at, and for each
            wait in it.

    Raises:
        ConfigError: The device is neither, or the number of threads is not positive.
    """

    def __init__(
        self,
        device: str,
        num_threads: int | None = None,
        role: str = "",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name = device
        self.device = _find_device(device)
        if num_threads is not None and num_threads < 1:
            raise ConfigError.for_field("num_threads", num_threads, "1 or more", where=f"lane {device}")
        self.waited_s = 0.0
        self.timeline: Timeline = OFF
        self._num_threads = num_threads
        self._clock = clock
        self._stream = _new_stream(self.device) if self.device.type == "cuda" else None
        # Hands work to the worker; None ends it. First in, first out is also what keeps lanes that wait for
        # each other's futures free of deadlock: work can only wait for what was submitted before it.
        self._queue: SimpleQueue[tuple[LaneFuture[Any], Callable[[], Any]] | None] = SimpleQueue()
        # "Not closed" and "queued" must be one step, or work could land behind the end mark and never end.
        self._open_lock = threading.Lock()
        self._is_open = True
        # A daemon, so that a program that forgets to close its lanes still ends.
        self._worker = threading.Thread(target=self._run, name=f"lane {device} {role}".rstrip(), daemon=True)
        self._worker.start()
        if num_threads is not None:
            self._set_num_threads(num_threads)

    def submit(self, fn: Callable[..., Result], *arguments: Any) -> LaneFuture[Result]:
        """Queue ``fn(*arguments)`` and return at once.

        Args:
            fn: What to compute; runs on the lane's thread and stream.
            arguments: Tensors come from any device and arrive on the lane's, also inside tuples and lists; a
                `LaneFuture` arrives as its value, for which the lane waits and not the caller.

        Raises:
            RuntimeError: The lane is closed.
        """
        future: LaneFuture[Result] = LaneFuture(self, span_name(fn), self.timeline.context)
        ready = self._record_events(arguments)

        def work() -> Result:
            for device, event in ready:  # on the stream that reads: the lane's, or one that copies to it
                torch.cuda.current_stream(device).wait_event(event)
            return fn(*(self._receive(argument) for argument in arguments))

        with self._open_lock:
            if not self._is_open:
                raise RuntimeError(f"lane {self.name} is closed")
            self._queue.put((future, work))
        return future

    def close(self) -> None:
        """Finish what is queued and end the worker; more calls do nothing."""
        with self._open_lock:
            if self._is_open:
                self._is_open = False
                self._queue.put(None)
        self._worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Lane({self.name!r}, num_threads={self._num_threads})"

    def _set_num_threads(self, num_threads: int) -> None:
        # OpenMP, MKL and oneDNN keep this number per thread, so it is set on the worker. torch also gives a
        # thread, when it first asks or computes, the last number that any thread has set: so the worker asks
        # before it sets its own, and the caller's number is put back for threads to come.
        callers = torch.get_num_threads()
        self.submit(torch.get_num_threads).result()
        self.submit(torch.set_num_threads, num_threads).result()
        torch.set_num_threads(callers)

    def _run(self) -> None:
        # On a CPU not even `torch.cuda.stream(None)`: where there is a GPU too, that would start CUDA on it.
        on_stream = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        with torch.inference_mode(), on_stream:
            while (entry := self._queue.get()) is not None:
                self._compute(*entry)
                del entry  # else the last result would stay in memory until more work comes

    def _compute(self, future: LaneFuture[Any], work: Callable[[], Any]) -> None:
        if not future._future.set_running_or_notify_cancel():
            return
        timeline = self.timeline
        began_s = timeline.now()
        try:
            try:
                value = work()
            finally:  # before anyone learns of the result, so that no span is late for the run's end
                timeline.add(future.name, began_s, timeline.now(), future.about)
            if self._stream is not None:
                future._done_on_device = self._stream.record_event()
        except BaseException as error:  # whatever it is, it belongs to who asked for the work
            future._future.set_exception(error)
        else:
            future._future.set_result(value)

    def _wait_for(self, other: LaneFuture[Any]) -> None:
        timeline = self.timeline
        began, began_s = self._clock(), timeline.now()
        other._future.exception()
        self.waited_s += self._clock() - began
        timeline.add(f"{other.name}_wait", began_s, timeline.now(), other.about)

    def _record_events(self, arguments: tuple[Any, ...]) -> list[tuple[torch.device, torch.cuda.Event]]:
        """Mark, on the caller's streams, the moment from which its tensors may be read."""
        devices = {tensor.device for tensor in _tensors(arguments) if tensor.is_cuda}
        if self._stream is not None:
            devices.add(self.device)  # the caller may have patched weights there, which are no arguments
        return [(device, torch.cuda.current_stream(device).record_event()) for device in devices]

    def _receive(self, value: Any) -> Any:
        """Return an argument as this lane may use it: futures resolved, tensors on its device."""
        if isinstance(value, LaneFuture):
            if value.lane is self:  # same thread, same stream: it is done, and ordered
                return value._future.result()
            if not value._future.done():
                self._wait_for(value)
            return self._receive(value.result())
        if isinstance(value, torch.Tensor):
            if value.is_cuda:  # its maker may free it before this lane has read or copied it
                value.record_stream(torch.cuda.current_stream(value.device))
            # To a CPU the copy must have ended: torch would not wait for it, if asked not to block.
            return value.to(self.device, non_blocking=self._stream is not None)
        if isinstance(value, (tuple, list)):
            items = [self._receive(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        return value


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what was queued, when no lane captures a graph: CUDA forbids it then."""
    if device.type != "cpu":
        with no_capture():
            torch.accelerator.synchronize(device)


def _find_device(name: str) -> torch.device:
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise ConfigError.for_field("lane", name, "cpu, cpu:<n>, cuda or cuda:<n>")
    if kind == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    index = int(number or 0)
    if index >= count:
        raise ConfigError.for_field("lane", name, f"a device of this machine, which has {count} CUDA devices")
    return torch.device("cuda", index)


def _new_stream(device: torch.device) -> torch.cuda.Stream:
    make: Callable[[torch.device], torch.cuda.Stream] = torch.cuda.Stream
    return make(device)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _keep_until_used(value: Any, stream: torch.cuda.Stream) -> None:
    """Tell the allocator that a stream reads these tensors, so that it keeps their memory until then."""
    for tensor in _tensors(value):
        if tensor.device == stream.device:
            tensor.record_stream(stream)
