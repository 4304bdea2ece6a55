"""Owns a session of work on a run over HTTP, as `swiftdiff.engine.session` does for others."""

from __future__ import annotations

import asyncio
import signal
import threading
from datetime import datetime
from pathlib import Path

from swiftdiff.client.http_replay import HttpReplay
from swiftdiff.client.target import HttpTarget, find_target, read_target
from swiftdiff.engine.clock import RealClock
from swiftdiff.engine.options import ReplayOptions
from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.engine.run_info import RunInfo, Session
from swiftdiff.engine.session import Ended, SessionObserver, scan_again
from swiftdiff.errors import StorageError, SwiftdiffError
from swiftdiff.telemetry.environment import describe_environment
from swiftdiff.trace import read_trace, scan_trace

ENGINE = "http"


def start_http_run(
    trace: Path,
    url: str,
    options: ReplayOptions,
    out: Path,
    *,
    model: str | None,
    api_key: str | None,
    argv: list[str],
    observer: SessionObserver,
) -> Ended:
    """Replay a trace against a server into a new folder.

    Args:
        trace: The trace's file.
        url: The server's address.
        options: When requests arrive, and how many are sent.
        out: The run's folder: not there yet, or empty.
        model: The model to ask for; None is the server's.
        api_key: Sent as bearer token, or None.
        argv: The command line, for ``environment.json``.
        observer: Is told how it goes.

    Raises:
        SwiftdiffError: The trace, the server or the folder cannot be used. Later mistakes are in `Ended`.
    """
    RunFolder(out).check_free()
    scanned = scan_trace(trace)
    target = asyncio.run(find_target(url, model, api_key))
    limit = options.limit if options.limit is not None else scanned.num_requests
    info = RunInfo(
        trace=str(scanned.path.resolve()),
        trace_sha256=scanned.sha256,
        num_requests=min(limit, scanned.num_requests),
        options=options,
        system=target.name,
        engine=ENGINE,
        exactness="not declared",
        model=target.model or "the server's",
        device=target.url,
        emulated_store=None,
        started_at=_now(),
    )
    folder = RunFolder.create(out, target, info, describe_environment(argv))
    return _work(folder, info, target, 0, api_key=api_key, observer=observer)


def resume_http_run(
    path: Path, trace: Path | None, *, api_key: str | None, observer: SessionObserver
) -> Ended:
    """Send what is missing in a run's folder to the server that it began with.

    Raises:
        SwiftdiffError: The folder is damaged, the trace is not the same any more, or the server is gone.
    """
    folder = RunFolder.open(path)
    info = scan_again(folder, trace)
    folder.drop_torn_record()
    done = sum(not record.warmup for record in folder.read_records())
    if done >= info.num_requests:
        return Ended(folder, "complete")
    target = read_target(folder.path / "config.toml")
    asyncio.run(find_target(target.url, target.model, api_key))
    return _work(folder, info, target, done, api_key=api_key, observer=observer)


def _work(
    folder: RunFolder,
    info: RunInfo,
    target: HttpTarget,
    done: int,
    *,
    api_key: str | None,
    observer: SessionObserver,
) -> Ended:
    clock = RealClock()
    began_at, began_s = _now(), clock.now()
    ended = Ended(folder, "complete")
    observer.started(folder.path, info.num_requests, done)
    replay = HttpReplay(
        target,
        folder,
        Path(info.trace).parent,
        info.options,
        api_key=api_key,
        clock=clock,
        observe=observer.recorded,
    )
    try:
        asyncio.run(_until_told(replay, Path(info.trace)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        ended = Ended(folder, "interrupted")
    except SwiftdiffError as error:
        ended = Ended(folder, "stopped", error)
    session = Session(
        started_at=began_at,
        outcome=ended.outcome,
        setup_s=0.0,
        wall_s=clock.now() - began_s,
        peak_host_bytes=0,  # the server's is not known, and the client's is nobody's question
        peak_device_bytes=None,
    )
    try:
        folder.append_session(session)
    except StorageError as error:
        return Ended(folder, "stopped", ended.reason or error)
    return ended


async def _until_told(replay: HttpReplay, trace: Path) -> None:
    """Replay until it is done, Ctrl-C (which `asyncio.run` makes a cancellation) or SIGTERM."""
    task = asyncio.current_task()
    if task is not None and threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await replay.run(lambda: read_trace(trace))


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
