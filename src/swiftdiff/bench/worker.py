"""Owns a system's own process: pinned to its cores, computing only while it is asked to.

A process each keeps thread pools, allocators and memory peaks of the systems apart. Between requests a worker
sleeps in a read from its pipe.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from PIL.Image import Image

from swiftdiff.bench.lineup import Contender
from swiftdiff.config import ServingConfig
from swiftdiff.errors import SwiftdiffError
from swiftdiff.request import AdapterRecord, ImageRequest
from swiftdiff.systems.base import Exactness, Served, ServingSystem
from swiftdiff.telemetry.memory import peak_bytes_by_device, peak_host_bytes

Build = Callable[[ServingConfig], ServingSystem]
Preload = Callable[[], None]
_CLOSE_S = 20.0
_TERMINATE_S = 2.0
_TRACEBACK_S = 10.0


def nothing() -> None:
    """Import nothing ahead."""


class WorkerLostError(SwiftdiffError):
    """A system's process could not start, or ended."""


@dataclass(frozen=True)
class Started:
    """What a worker says once its system is there.

    Attributes:
        exactness: What the system declares.
        threads: Torch's intra-op threads; 0 without torch.
        seconds: What it took: ``build``, imports included that were not preloaded, and ``warm_up``, which
            captures graphs and compiles what is compiled ahead.
    """

    exactness: Exactness
    threads: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Preloaded:
    """A worker has imported what it shall import before its system is built."""


@dataclass(frozen=True)
class Reply:
    """How one request went in a worker.

    Attributes:
        error: Why it failed, or None.
        latency_s: From the call of `serve` to the pictures.
        restore_s: What `finish` took.
        stages: As the system measured them, and ``other``.
        bytes_loaded: As the system says.
        adapters: As the system says.
        graphs_captured: As the system says; None if it does not.
        capture_s: Seconds that the process has spent on capturing, tracing and compiling graphs so far.
        cpu_s: CPU seconds of the process meanwhile.
        peak_host_bytes: Most resident memory of the process so far.
        peak_device_bytes: Most memory of each GPU that torch has held so far.
        picture: The first picture as PNG.
        lost: Whether the system is of no use any more.
    """

    error: str | None
    latency_s: float
    restore_s: float
    stages: dict[str, float]
    bytes_loaded: int
    adapters: tuple[AdapterRecord, ...]
    graphs_captured: int | None
    capture_s: float
    cpu_s: float
    peak_host_bytes: int
    peak_device_bytes: dict[str, int]
    picture: bytes | None
    lost: bool


class Worker:
    """The benchmark's side of a system's process, which starts at once but builds nothing before `begin`.

    Args:
        contender: What to build, and on which cores.
        images_root: Folder that control images count from.
        build: Makes the system; found by its name in the new process.
        preload: Called in the process before that: imports what takes long.
        patience_s: How long it may take to build its system, or to serve a request, before it is taken to
            hang and ended, having said on stderr where it was; None waits for ever.
    """

    def __init__(
        self,
        contender: Contender,
        images_root: Path,
        build: Build,
        preload: Preload = nothing,
        *,
        patience_s: float | None = None,
    ) -> None:
        self.contender = contender
        self._patience_s = patience_s
        context = multiprocessing.get_context("spawn")
        self._connection, far_end = context.Pipe()
        self._is_preloaded = False
        self._complaint: str | None = None  # what the process said before it ended
        self._process = context.Process(
            target=_work,
            args=(far_end, contender, images_root, build, preload),
            name=contender.name,
            daemon=True,
        )
        self._process.start()
        far_end.close()

    def wait_preloaded(self) -> None:
        """Return once the process has imported what it shall, and sleeps.

        Raises:
            WorkerLostError: It could not, or the process ended.
        """
        if not self._is_preloaded:
            assert isinstance(self._receive(), Preloaded)
            self._is_preloaded = True

    def begin(self) -> None:
        """Let the process build its system, and return at once; a process that has ended is no error yet."""
        with contextlib.suppress(OSError):
            self._connection.send(True)

    def wait_started(self) -> Started:
        """Return once the system is warm; `begin` comes first.

        Raises:
            WorkerLostError: It could not be built, or the process ended.
        """
        self.wait_preloaded()
        started = self._receive(self._patience_s)
        assert isinstance(started, Started)
        return started

    def serve(self, request: ImageRequest) -> Reply:
        """Serve a request and clean up after it, both timed in the worker.

        Raises:
            WorkerLostError: The process ended.
        """
        try:
            self._connection.send(request)
        except OSError as error:
            raise WorkerLostError(self._describe_end()) from error
        reply = self._receive(self._patience_s)
        assert isinstance(reply, Reply)
        return reply

    def close(self) -> None:
        """End the process: by word if it waits, by force if it still computes."""
        try:
            self._connection.send(None)
        except OSError:
            pass
        else:
            self._process.join(_CLOSE_S)
        self.kill()

    def kill(self) -> None:
        """End the process: at its next chance to clean up, or by force."""
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(_TERMINATE_S)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._connection.close()

    def _receive(self, patience_s: float | None = None) -> object:
        if not wait([self._connection, self._process.sentinel], patience_s):
            self._end_hanging()
            raise WorkerLostError(self._describe_end())
        try:
            message = self._connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerLostError(self._describe_end()) from error
        if isinstance(message, str):
            self._complaint = message
            raise WorkerLostError(message)
        return message

    def _end_hanging(self) -> None:
        """Let the process say where each of its threads is, and end it."""
        if self._process.pid is not None and hasattr(signal, "SIGUSR1"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGUSR1)
            self._process.join(_TRACEBACK_S)
        self._process.kill()
        self._process.join()
        self._complaint = f"{self.contender.name} did not answer within {self._patience_s:g} s and was ended"

    def _describe_end(self) -> str:
        if self._complaint is not None:
            return self._complaint
        self._process.join(_CLOSE_S)
        code = self._process.exitcode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        return f"the process of {self.contender.name} ended {how}"


def _work(
    connection: Connection,
    contender: Contender,
    images_root: Path,
    build: Build,
    preload: Preload,
) -> None:
    """Run in the new process: build the system when told to, then serve what comes until None or the
    parent's end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, chain=True)  # tells and ends: see `Worker._end_hanging`
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, contender.cores)  # before torch counts cores
    try:
        preload()
        if not _is_wanted(connection):
            return
        began_s = time.perf_counter()
        system = build(contender.config)
        built_s = time.perf_counter()
        system.warm_up()
    except Exception as error:
        connection.send(f"{contender.name} cannot start: {_describe(error)}")
        return
    seconds = {"build": built_s - began_s, "warm_up": time.perf_counter() - built_s}
    connection.send(Started(system.exactness, _torch_threads(), seconds))
    try:
        while (request := connection.recv()) is not None:
            reply = _serve(system, request, images_root)
            connection.send(reply)
            if reply.lost:
                return
    except (EOFError, OSError):  # the parent is gone
        return
    finally:
        system.close()


def _is_wanted(connection: Connection) -> bool:
    """Sleep until the parent says whether the system shall be built; one that is gone wants nothing."""
    try:
        connection.send(Preloaded())
        return bool(connection.recv())
    except (EOFError, OSError):
        return False


def _serve(system: ServingSystem, request: ImageRequest, images_root: Path) -> Reply:
    error: str | None = None
    served: Served | None = None
    images: list[Image] = []
    lost = False
    cpu_s = time.process_time()
    began_s = time.perf_counter()
    try:
        served = system.serve(request, images_root)
        images = served.images() if callable(served.images) else served.images
    except Exception as problem:  # whatever goes wrong with one request, the others go on
        error = _describe(problem)
    done_s = time.perf_counter()
    try:
        system.finish()
    except Exception as problem:
        error, lost = f"cannot restore the model: {_describe(problem)}", True
    restored_s = time.perf_counter()
    stages = dict(served.stages) if served is not None else {}
    stages["other"] = done_s - began_s - sum(stages.values())
    return Reply(
        error=error,
        latency_s=done_s - began_s,
        restore_s=restored_s - done_s,
        stages=stages,
        bytes_loaded=served.bytes_loaded if served is not None else 0,
        adapters=served.adapters if served is not None else (),
        graphs_captured=served.graphs_captured if served is not None else None,
        capture_s=_capture_seconds(),
        cpu_s=time.process_time() - cpu_s,
        peak_host_bytes=peak_host_bytes(),
        peak_device_bytes=peak_bytes_by_device(),
        picture=_to_png(images[0]) if images else None,
        lost=lost,
    )


def _to_png(image: Image) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG", compress_level=1)
    return out.getvalue()


def _torch_threads() -> int:
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else 0


def _capture_seconds() -> float:
    captured = sys.modules.get("swiftdiff.pipeline.captured")
    return float(captured.capture_seconds()) if captured is not None else 0.0


def _describe(error: Exception) -> str:
    if isinstance(error, SwiftdiffError):
        return str(error)
    traceback.print_exception(error)  # nobody expected it: the record has no room for where it came from
    return f"{type(error).__name__}: {error}"
