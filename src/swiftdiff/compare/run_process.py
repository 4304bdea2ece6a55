"""Owns the process in which one run is made: what ``swiftdiff replay`` does, without the terminal.

A process each keeps thread pools, allocators, caches and memory peaks of the runs apart.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Literal

from swiftdiff.compare.observer import Served
from swiftdiff.config import ServingConfig
from swiftdiff.engine.options import ReplayOptions
from swiftdiff.engine.session import Build, SessionObserver, start_run
from swiftdiff.errors import SwiftdiffError
from swiftdiff.request import RequestRecord

_STOP_S = 30.0


@dataclass(frozen=True)
class Job:
    """One run to make: the arguments of `swiftdiff.engine.session.start_run`."""

    trace: Path
    config: ServingConfig
    options: ReplayOptions
    out: Path
    argv: list[str]


@dataclass(frozen=True)
class Ended:
    """The run ended.

    Attributes:
        outcome: ``failed`` if not every request was served or failed.
        reason: Why, or None.
        cpu_s: CPU seconds of its process.
    """

    outcome: Literal["complete", "failed"]
    reason: str | None = None
    cpu_s: float = 0.0


def make_run(job: Job, build: Build, observe: Callable[[Served], None]) -> Ended:
    """Make a run in a process of its own and wait for it. Whatever goes wrong in it, this returns.

    Ctrl-C stops the run as it stops ``swiftdiff replay``, between two requests' records, and is raised here
    when the process has ended.

    Args:
        job: The run.
        build: Makes the system; found by its name in the new process.
        observe: Is told of each request.
    """
    context = multiprocessing.get_context("spawn")
    connection, far_end = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(far_end, job, build), name=job.config.name, daemon=True)
    with _sigint_blocked():
        process.start()
    far_end.close()
    try:
        while True:
            wait([connection, process.sentinel])
            try:
                message = connection.recv()
            except (EOFError, OSError):
                process.join()
                return Ended("failed", _describe_end(job.config.name, process.exitcode))
            if isinstance(message, Ended):
                process.join()
                return message
            observe(message)
    finally:
        _stop(process, connection)


def _stop(process: multiprocessing.process.BaseProcess, connection: Connection) -> None:
    if process.is_alive():
        process.terminate()
        try:
            process.join(_STOP_S)
        finally:  # a second Ctrl-C
            if process.is_alive():
                process.kill()
                process.join()
    connection.close()


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Start a process that Ctrl-C does not reach: a mask is inherited. This one decides when it stops."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _describe_end(name: str, code: int | None) -> str:
    how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
    return f"the process of {name} ended {how}"


class _Reporter(SessionObserver):
    """Tells the parent; without one the run ends, for nobody waits for it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._total = self._done = self._failed = 0

    def started(self, folder: Path, num_requests: int, done: int) -> None:
        self._total = num_requests

    def recorded(self, record: RequestRecord, waiting: int) -> None:
        if not record.warmup:
            self._done += 1
            self._failed += record.status == "failed"
            self._connection.send(Served(self._done, self._total, self._failed))


def _work(connection: Connection, job: Job, build: Build) -> None:
    """Run in the new process: make the run, write its report, and say how it went."""
    try:
        ended = _make(connection, job, build)
    except SwiftdiffError as error:
        ended = Ended("failed", str(error))
    except (BrokenPipeError, KeyboardInterrupt):
        return
    except Exception as error:  # whatever is wrong with one system, the others go on
        ended = Ended("failed", f"{type(error).__name__}: {error}")
    connection.send(Ended(ended.outcome, ended.reason, time.process_time()))


def _make(connection: Connection, job: Job, build: Build) -> Ended:
    from swiftdiff.report.run_report import write_report

    reporter = _Reporter(connection)
    run = start_run(
        job.trace, job.config, job.options, job.out, argv=job.argv, observer=reporter, build=build
    )
    if run.outcome == "interrupted":
        raise KeyboardInterrupt
    if run.outcome == "stopped":
        return Ended("failed", str(run.reason))
    write_report(run.folder)
    return Ended("complete")
