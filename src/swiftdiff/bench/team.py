"""Owns the systems that take turns: their processes, their records, and what becomes of the lost ones."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from swiftdiff.bench.folder import BenchFolder
from swiftdiff.bench.lineup import Contender
from swiftdiff.bench.options import AnyView
from swiftdiff.bench.records import Measurement, Purpose
from swiftdiff.bench.requests import ModelCase
from swiftdiff.bench.settings import AdapterSetting
from swiftdiff.bench.worker import Build, Preload, Started, Worker, WorkerLostError, nothing
from swiftdiff.engine.interrupt import Interrupts
from swiftdiff.request import ImageRequest
from swiftdiff.telemetry.machine_load import CpuWatch, load_1min


@dataclass(frozen=True)
class Stage:
    """The systems that are compared with each other: one model in one view."""

    case: ModelCase
    view: AnyView


class Team:
    """The workers of one stage.

    Args:
        stage: Model and view.
        contenders: Its systems.
        folder: Gets records and pictures.
        interrupts: Entered by the caller; a picture that is saved gets its record.
        patience_s: As for `Worker`.
    """

    def __init__(
        self,
        stage: Stage,
        contenders: Sequence[Contender],
        folder: BenchFolder,
        interrupts: Interrupts,
        *,
        patience_s: float | None = None,
    ) -> None:
        self.stage = stage
        self._patience_s = patience_s
        self.contenders = contenders
        self._folder = folder
        self._interrupts = interrupts
        self._workers: dict[str, Worker] = {}
        self._started: dict[str, Started] = {}
        self._lost: dict[str, str] = {}

    def start(self, build: Build) -> list[str]:
        """Start all side by side; return what went wrong."""
        self.spawn(self.contenders, build)
        return self.begin(self.contenders)

    def spawn(self, contenders: Sequence[Contender], build: Build, preload: Preload = nothing) -> None:
        """Start the processes of those that have none; they sleep until `begin`.

        Args:
            contenders: Some of the systems.
            build: Makes the systems.
            preload: Called in each process before it sleeps.
        """
        for contender in contenders:
            if contender.name not in self._workers:
                self._workers[contender.name] = Worker(
                    contender, self._folder.path, build, preload, patience_s=self._patience_s
                )

    def wait_preloaded(self) -> None:
        """Return once all processes sleep; what went wrong is told by `begin`."""
        for worker in self._workers.values():
            with contextlib.suppress(WorkerLostError):
                worker.wait_preloaded()

    def begin(self, contenders: Sequence[Contender]) -> list[str]:
        """Let some build their systems side by side; return what went wrong when all are done."""
        began_at, load = now(), load_1min()
        for contender in contenders:
            self._workers[contender.name].begin()
        problems = []
        for contender in contenders:
            try:
                started = self._workers[contender.name].wait_started()
            except WorkerLostError as error:
                self._lost[contender.name] = str(error)
                problems.append(str(error))
                continue
            self._started[contender.name] = started
            self._record(self._blank(contender, "start", began_at, load, stages=started.seconds))
        return problems

    def end(self, contenders: Sequence[Contender]) -> None:
        """End some of the processes, which gives their devices' memory back."""
        for contender in contenders:
            self._workers.pop(contender.name).close()

    def serve(
        self,
        contender: Contender,
        setting: AdapterSetting,
        request: ImageRequest,
        repeat: int,
        purpose: Purpose,
    ) -> Measurement:
        """Let one system serve a request while the others sleep; record how it went."""
        started_at, load, watch = now(), load_1min(), CpuWatch()
        failed = self._blank(contender, purpose, started_at, load, setting=setting.name, repeat=repeat)
        if contender.name in self._lost:
            return self._record(failed.model_copy(update={"error": self._lost[contender.name]}))
        try:
            reply = self._workers[contender.name].serve(request)
        except WorkerLostError as error:
            self._lost[contender.name] = str(error)
            return self._record(failed.model_copy(update={"error": str(error)}))
        other_cpu_s = watch.other_s(reply.cpu_s)
        occupied_s = reply.latency_s + reply.restore_s
        if reply.lost:
            self._lost[contender.name] = reply.error or ""
        measured = failed.model_copy(
            update={
                "error": reply.error,
                "stages": reply.stages,
                "bytes_loaded": reply.bytes_loaded,
                "adapters": reply.adapters,
                "graphs_captured": reply.graphs_captured,
                "capture_s": reply.capture_s,
                "exactness": self._started[contender.name].exactness,
                "threads": self._started[contender.name].threads,
                "device_seconds": occupied_s * contender.num_devices,
                "other_cpu_s": other_cpu_s,
                "peak_host_bytes": reply.peak_host_bytes,
                "peak_device_bytes": reply.peak_device_bytes,
            }
        )
        if reply.error is None:
            served = {"latency_s": reply.latency_s, "restore_s": reply.restore_s}
            measured = measured.model_copy(update=served)
        return self._record(measured, reply.picture)

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers.values():
            worker.close()

    def kill(self) -> None:
        """End all processes at once."""
        for worker in self._workers.values():
            worker.kill()

    def _blank(
        self,
        contender: Contender,
        purpose: Purpose,
        started_at: str,
        load: float,
        *,
        setting: str = "",
        repeat: int = 0,
        stages: dict[str, float] | None = None,
    ) -> Measurement:
        return Measurement(
            purpose=purpose,
            model=self.stage.case.model,
            view=self.stage.view,
            setting=setting,
            system=contender.name,
            repeat=repeat,
            started_at=started_at,
            stages=stages or {},
            cores=contender.cores,
            load_1min=load,
        )

    def _record(self, measured: Measurement, picture: bytes | None = None) -> Measurement:
        with self._interrupts.hold():
            if measured.purpose == "measure" and picture is not None:
                name = "-".join((measured.setting.replace("/", "-"), measured.system, str(measured.repeat)))
                path = f"images/{self.stage.case.slug}-{measured.view}/{name}.png"
                self._folder.write_bytes(path, picture)
                measured = measured.model_copy(update={"picture": path})
            self._folder.append(measured)
        return measured


def now() -> str:
    """Return the time as records have it: ISO 8601, with time zone."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
