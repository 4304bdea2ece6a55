"""Owns a session of work on a run, from its first file to its last record, new or resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from swiftdiff.adapters.emulation import describe_emulation
from swiftdiff.adapters.generated_store import list_store, mapped_config
from swiftdiff.adapters.mapping import AdapterMapping, count_uses, map_adapters
from swiftdiff.adapters.mapping_file import MappingRule, read_rule
from swiftdiff.config import ServingConfig
from swiftdiff.engine.clock import Clock, RealClock
from swiftdiff.engine.interrupt import Interrupts
from swiftdiff.engine.measuring import SessionEnd
from swiftdiff.engine.options import ReplayOptions
from swiftdiff.engine.replay import Replay
from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.engine.run_info import MappedAdapters, RunInfo, Session
from swiftdiff.errors import StorageError, SwiftdiffError
from swiftdiff.request import ImageRequest, RequestRecord
from swiftdiff.systems import ServingSystem, build_system
from swiftdiff.telemetry.environment import describe_environment
from swiftdiff.telemetry.memory import peak_bytes_by_device, peak_device_bytes, peak_host_bytes
from swiftdiff.trace import TraceInfo, read_trace, scan_trace

Build = Callable[[ServingConfig], ServingSystem]


class SessionObserver:
    """Is told how a session goes; this one keeps quiet. Made to be overridden."""

    def loading(self, config: ServingConfig) -> None:
        """The model is about to be loaded."""

    def started(self, folder: Path, num_requests: int, done: int) -> None:
        """Requests are about to be served; ``done`` of them were in earlier sessions."""

    def recorded(self, record: RequestRecord, waiting: int) -> None:
        """A request was served or failed; ``waiting`` further ones have arrived."""


Ended = SessionEnd[RunFolder]


def start_run(
    trace: Path,
    config: ServingConfig,
    options: ReplayOptions,
    out: Path,
    *,
    argv: list[str],
    observer: SessionObserver | None = None,
    clock: Clock | None = None,
    build: Build = build_system,
) -> Ended:
    """Replay a trace into a new folder.

    Args:
        trace: The trace's file.
        config: The system; relative paths in it count from the working folder.
        options: When requests arrive, and how many are served.
        out: The run's folder: not there yet, or empty. It is made once the model is loaded.
        argv: The command line, for ``environment.json``.
        observer: Is told how it goes.
        clock: The time; None is the machine's.
        build: Makes the system.

    Raises:
        SwiftdiffError: The trace, the config's model or the folder cannot be used. Later mistakes are in
        `Ended`. KeyboardInterrupt: Ctrl-C before there was a folder.
    """
    observer = observer or SessionObserver()
    RunFolder(out).check_free()
    rule = None if options.adapters is None else read_rule(options.adapters)
    scanned = scan_trace(trace)
    mapping = None if rule is None else _map_trace(rule, scanned, config)
    with mapped_config(config, mapping) as serving:
        began_s = time.perf_counter()
        system = _prepare(serving, observer, build)
        info = _describe_run(scanned, config, options, system, mapping)
        folder = RunFolder.create(out, config, info, describe_environment(argv), mapping)
        setup_s = time.perf_counter() - began_s
        job = _Job(folder, info, mapping, system, setup_s)
        return _work(job, 0, observer=observer, clock=clock or RealClock())


def resume_run(
    path: Path,
    trace: Path | None = None,
    *,
    observer: SessionObserver | None = None,
    clock: Clock | None = None,
    build: Build = build_system,
) -> Ended:
    """Serve what is missing in a run's folder, with the same trace, system and load.

    Args:
        path: The run's folder.
        trace: Where the trace lies now; None is where it was.
        observer: Is told how it goes.
        clock: The time; None is the machine's.
        build: Makes the system.

    Raises:
        SwiftdiffError: The folder is no run's or is damaged, or the trace is not the same any more.
        KeyboardInterrupt: Ctrl-C while the model was loaded.
    """
    observer = observer or SessionObserver()
    folder = RunFolder.open(path)
    info = scan_again(folder, trace)
    folder.drop_torn_record()
    done = sum(not record.warmup for record in folder.read_records())
    if done >= info.num_requests:
        return Ended(folder, "complete")
    mapping = folder.read_mapping()
    with mapped_config(folder.read_config(), mapping) as serving:
        began_s = time.perf_counter()
        system = _prepare(serving, observer, build)
        job = _Job(folder, info, mapping, system, setup_s=time.perf_counter() - began_s)
        return _work(job, done, observer=observer, clock=clock or RealClock())


def scan_again(folder: RunFolder, trace: Path | None) -> RunInfo:
    """Return what a folder's run is of, with its trace where it lies now: ``trace``, or where it was.

    Raises:
        SwiftdiffError: The folder is damaged, or the trace is gone or not the same any more.
    """
    info = folder.read_info()
    scanned = scan_trace(trace or Path(info.trace))
    if scanned.sha256 != info.trace_sha256:
        raise StorageError(
            f"{scanned.path} is not the trace that {folder.path} was made with: its SHA-256 begins with "
            f"{scanned.sha256[:12]}, the run's with {info.trace_sha256[:12]}"
        )
    return info.model_copy(update={"trace": str(scanned.path.resolve())})


def resolve_paths(config: ServingConfig, base: Path) -> ServingConfig:
    """Return a config whose relative model, adapter folders and files are absolute: it holds anywhere.

    Args:
        config: As it was read.
        base: Folder that adapter folders and files count from, and models unless they lie below the working
            folder.
    """
    model = config.model
    if "/" in model or "\\" in model or model.endswith(".safetensors"):
        candidates = (base / model, Path(model).expanduser())
        model = next((str(path.resolve()) for path in candidates if path.exists()), model)
    return config.model_copy(
        update={
            "model": model,
            "adapters": config.adapters.relative_to(base),
            "swiftdiff": config.swiftdiff.relative_to(base),
        }
    )


def _prepare(config: ServingConfig, observer: SessionObserver, build: Build) -> ServingSystem:
    observer.loading(config)
    system = build(config)
    system.warm_up()
    return system


def _map_trace(rule: MappingRule, scanned: TraceInfo, config: ServingConfig) -> AdapterMapping:
    """Map all of a trace's adapters, whatever the limit, so that an id means the same in every run of it."""
    known, url = list_store(config)
    return map_adapters(rule, count_uses(read_trace(scanned.path)), known, url)


@dataclass(frozen=True)
class _Job:
    """What a session works with."""

    folder: RunFolder
    info: RunInfo
    mapping: AdapterMapping | None
    system: ServingSystem
    setup_s: float

    def requests(self) -> Iterable[ImageRequest]:
        """Read the trace from its start, as it is served."""
        requests = read_trace(Path(self.info.trace))
        return requests if self.mapping is None else map(self.mapping.apply, requests)


def _work(job: _Job, done: int, *, observer: SessionObserver, clock: Clock) -> Ended:
    """Serve until the trace ends, Ctrl-C, or a disk that takes no more records; then note how it went."""
    folder, info, system = job.folder, job.info, job.system
    began_at, began_s = _now(), clock.now()
    ended = Ended(folder, "complete")
    observer.started(folder.path, info.num_requests, done)
    try:
        with Interrupts() as interrupts:
            images_root = Path(info.trace).parent
            replay = Replay(system, folder, images_root, info.options, clock=clock, observe=observer.recorded)
            replay.run(job.requests, interrupts)
    except KeyboardInterrupt:
        ended = Ended(folder, "interrupted")
    except SwiftdiffError as error:
        ended = Ended(folder, "stopped", error)
    finally:
        system.close()
    session = Session(
        started_at=began_at,
        outcome=ended.outcome,
        setup_s=job.setup_s,
        wall_s=clock.now() - began_s,
        peak_host_bytes=peak_host_bytes(),
        peak_device_bytes=peak_device_bytes(info.device),
        peak_bytes_by_device=peak_bytes_by_device(),
    )
    try:
        folder.append_session(session)
    except StorageError as error:
        return Ended(folder, "stopped", ended.reason or error)
    return ended


def _describe_run(
    scanned: TraceInfo,
    config: ServingConfig,
    options: ReplayOptions,
    system: ServingSystem,
    mapping: AdapterMapping | None,
) -> RunInfo:
    limit = options.limit if options.limit is not None else scanned.num_requests
    return RunInfo(
        trace=str(scanned.path.resolve()),
        trace_sha256=scanned.sha256,
        num_requests=min(limit, scanned.num_requests),
        options=options,
        system=config.name,
        engine=config.engine,
        exactness=system.exactness,
        model=config.model,
        device=config.device,
        emulated_store=describe_emulation(config.adapters.emulate),
        mapped_adapters=None if mapping is None else _describe_mapping(mapping),
        started_at=_now(),
    )


def _describe_mapping(mapping: AdapterMapping) -> MappedAdapters:
    how = mapping.how if mapping.file is None else mapping.file
    return MappedAdapters(how=how, sha256=mapping.sha256, description=mapping.describe())


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
