"""Turns what a system served into an answer: pictures encoded, record on the disk, then the client told."""

from __future__ import annotations

import base64
import io
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from PIL.Image import Image

from swiftdiff.engine.clock import Clock
from swiftdiff.errors import StorageError, SwiftdiffError
from swiftdiff.files import PNG_COMPRESS_LEVEL
from swiftdiff.request import RequestRecord
from swiftdiff.server.access_log import AccessLog, AccessRecord
from swiftdiff.server.errors import HttpError, public_error
from swiftdiff.server.job import Failed, Finished, Job, Partial
from swiftdiff.server.metrics import Metrics
from swiftdiff.server.schema import HowServed
from swiftdiff.systems.base import Served

LOGGER = logging.getLogger("swiftdiff.server")
MAX_ERROR_LENGTH = 500


@dataclass(frozen=True)
class Outcome:
    """What came of serving a job.

    Attributes:
        served: What the system gave, or None.
        error: Why there is nothing, or None.
        handed_over_s: When the system was free again but for the restore.
        num_devices: That it occupied; of those that a batch had, the job's share by its pictures.
        batch_size: Requests that were served as one with it, itself included.
    """

    served: Served | None
    error: Exception | None
    handed_over_s: float
    num_devices: float
    batch_size: int = 1


class Delivery:
    """Ends jobs, on a thread of its own beside the one that serves.

    Args:
        log: Gets a record of every request.
        metrics: Count them.
        clock: The time.
    """

    def __init__(self, log: AccessLog, metrics: Metrics, clock: Clock) -> None:
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="deliver")

    def show(self, job: Job, partial_index: int, step: int, num_steps: int, pictures: list[Image]) -> None:
        """Send a picture of an unfinished step."""

        def work() -> None:
            picture = pictures[0]
            job.tell(Partial(partial_index, step, num_steps, encode_png(picture), size_of(picture)))
            self._metrics.partial()

        self._thread.submit(_logged, work)

    def end(self, job: Job, outcome: Outcome) -> None:
        """Answer a job that was served or failed; nothing happens if nobody waits for it."""
        self._thread.submit(_logged, lambda: self._end(job, outcome))

    def end_unserved(self, job: Job, error: HttpError) -> Future[None] | None:
        """Record that a job ended from outside: late, abandoned, or refused by a shutdown.

        Returns:
            What ends when the record is on the disk; None if the job had ended before.
        """
        if not job.conclude():
            return None
        job.wake()
        record = self._record(job, job.stages(), error=error)
        self._metrics.answered(error.status, error.code)
        return self._note(job.request.request_id, error.status, error.code, record, job)

    def refuse(self, request_id: str, error: HttpError) -> Future[None]:
        """Record a request that was refused before it could wait."""
        self._metrics.answered(error.status, error.code)
        return self._note(request_id, error.status, error.code, None, None)

    def flush(self) -> None:
        """Wait until what was handed over by now is delivered."""
        self._thread.submit(lambda: None).result()

    def close(self) -> None:
        """Deliver what is left."""
        self._thread.shutdown(wait=True)

    def _end(self, job: Job, outcome: Outcome) -> None:
        if job.is_over:
            return
        error, served = outcome.error, outcome.served
        pictures: list[Image] = []
        encoded: tuple[str, ...] = ()
        stages = job.stages()
        try:
            if error is not None:
                raise error
            assert served is not None
            pictures = served.images() if callable(served.images) else served.images
            began_s = self._clock.now()
            encoded = tuple(map(encode_png, pictures))
            stages = {**served.stages, "image_encode": self._clock.now() - began_s}
        except SwiftdiffError as failure:
            error = failure
            name = f"request {job.request.request_id}: "
            LOGGER.warning("%s%s", name, str(failure).removeprefix(name))
        except Exception as failure:
            error = failure
            LOGGER.exception("request %s failed", job.request.request_id)
        if not job.conclude():
            return
        adapter_ids = [use.id for use in job.request.controlnets] + [use.id for use in job.request.loras]
        public = None if error is None else public_error(error, adapter_ids)
        busy_s = (outcome.handed_over_s - (job.started_s or 0.0)) * outcome.num_devices
        record = self._record(
            job, stages, error=error, served=served, pictures=pictures, device_seconds=busy_s
        )
        public = self._write(job, record, public, outcome.batch_size)
        if public is not None:
            job.tell(Failed(public))
            return
        for name, seconds in record.stages.items():
            self._metrics.stage(name, seconds)
        for adapter in record.adapters:
            self._metrics.adapter(adapter)
        self._metrics.served(len(pictures), record.queue_wait_s, record.latency_s)
        job.tell(Finished(encoded, size_of(pictures[0]), _how(job, record, outcome.batch_size)))

    def _write(
        self, job: Job, record: RequestRecord, public: HttpError | None, batch_size: int
    ) -> HttpError | None:
        """Log a record and return what to answer: what is not on the disk is not answered as served."""
        status = 200 if public is None else public.status
        code = None if public is None else public.code
        try:
            self._note(job.request.request_id, status, code, record, job, batch_size=batch_size).result()
        except StorageError as failure:
            LOGGER.error("%s", failure)
            public = HttpError(503, "the server cannot write its access log", "access_log_unavailable")
            status, code = public.status, public.code
        self._metrics.answered(status, code)
        return public

    def _note(
        self,
        request_id: str,
        status: int,
        code: str | None,
        record: RequestRecord | None,
        job: Job | None,
        *,
        batch_size: int = 1,
    ) -> Future[None]:
        return self._log.submit(
            AccessRecord(
                at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                request_id=request_id,
                http_status=status,
                code=code,
                engine=None if job is None else job.engine,
                batch_size=batch_size,
                record=record,
            )
        )

    def _record(
        self,
        job: Job,
        stages: dict[str, float],
        *,
        error: Exception | None = None,
        served: Served | None = None,
        pictures: list[Image] | None = None,
        device_seconds: float = 0.0,
    ) -> RequestRecord:
        request, now_s = job.request, self._clock.now()
        started_s = now_s if job.started_s is None else job.started_s
        latency_s = now_s - job.arrived_s
        stages = {**stages, "other": now_s - started_s - sum(stages.values())}
        size = pictures[0].size if pictures else (request.width, request.height)
        is_ok = error is None
        return RequestRecord(
            request_id=request.request_id,
            status="ok" if is_ok else "failed",
            error=None if error is None else (str(error) or repr(error))[:MAX_ERROR_LENGTH],
            error_kind=None if error is None else type(error).__name__,
            scheduled_at_s=job.arrived_s,
            started_at_s=started_s,
            finished_at_s=now_s,
            queue_wait_s=started_s - job.arrived_s,
            latency_s=latency_s,
            stages=stages,
            num_images=request.num_images,
            num_inference_steps=request.num_inference_steps,
            width=size[0],
            height=size[1],
            controlnets=tuple(use.id for use in request.controlnets),
            loras=tuple(use.id for use in request.loras),
            bytes_loaded=0 if served is None else served.bytes_loaded,
            adapters=() if served is None else served.adapters,
            graphs_captured=None if served is None else served.graphs_captured,
            device_seconds=device_seconds,
            slo_ms=request.slo_ms,
            slo_met=None if request.slo_ms is None else is_ok and latency_s * 1000 <= request.slo_ms,
        )


def encode_png(picture: Image) -> str:
    """Return base64 of a PNG file."""
    file = io.BytesIO()
    picture.save(file, format="PNG", compress_level=PNG_COMPRESS_LEVEL)
    return base64.b64encode(file.getbuffer()).decode("ascii")


def size_of(picture: Image) -> str:
    """Return a picture's size as the API writes it."""
    return f"{picture.width}x{picture.height}"


def unix_time() -> int:
    """Return what OpenAI's API calls ``created``."""
    return int(time.time())


def _how(job: Job, record: RequestRecord, batch_size: int) -> HowServed:
    return HowServed(
        request_id=record.request_id,
        seed=job.request.seed,
        stages=record.stages,
        latency_s=record.latency_s,
        queue_wait_s=record.queue_wait_s,
        batch_size=batch_size,
        adapters=record.adapters,
    )


def _logged(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception:  # nobody reads this thread's futures
        LOGGER.exception("a delivery failed")
