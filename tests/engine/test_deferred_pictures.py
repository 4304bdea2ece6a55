"""Pictures that are decoded while the next request is served, and what a system may know of what waits."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeSystem, fake_config, make_request, write_requests
from patience import PATIENCE_S
from PIL import Image

from swiftdiff.engine import run_folder
from swiftdiff.engine.arrivals import Arrival
from swiftdiff.engine.clock import FakeClock
from swiftdiff.engine.options import ClosedLoad, ReplayOptions
from swiftdiff.engine.queue import ClosedQueue
from swiftdiff.engine.session import Ended, resume_run, start_run
from swiftdiff.errors import RequestError
from swiftdiff.request import ImageRequest, RequestRecord
from swiftdiff.systems.base import Served


class DeferringSystem(FakeSystem):
    """Hands out functions that give the pictures.

    Args:
        decode: Called with a request's id before its pictures are given, by whoever asks for them; may raise.
        options: As for `FakeSystem`.
    """

    def __init__(self, decode: Callable[[str], None], **options: Any) -> None:
        super().__init__(**options)
        self.decode = decode
        self.decoded: list[str] = []
        self.decoded_at_close: list[str] = []

    def serve(self, request: ImageRequest, images_root: Path) -> Served:
        served = super().serve(request, images_root)

        def images() -> list[Image.Image]:
            self.decode(request.request_id)
            assert isinstance(served.images, list)
            self.decoded.append(request.request_id)
            served.stages["vae_decode"] = 0.0
            return served.images

        return Served(images, served.stages, served.bytes_loaded)

    def close(self) -> None:
        self.decoded_at_close = list(self.decoded)
        super().close()


class Bench:
    """A trace and a deferring system, to be replayed."""

    def __init__(
        self, folder: Path, count: int, decode: Callable[[str], None] = lambda name: None, **system: Any
    ) -> None:
        requests = [make_request(f"r{i}", seed=i) for i in range(count)]
        self.trace = write_requests(folder / "trace.jsonl", requests)
        self.out = folder / "run"
        self.clock = FakeClock()
        self.system = DeferringSystem(decode, clock=self.clock, **system)

    def start(self, **options: Any) -> Ended:
        return start_run(
            self.trace,
            fake_config(),
            ReplayOptions(**options),
            self.out,
            argv=[],
            clock=self.clock,
            build=lambda config: self.system,
        )

    def records(self) -> dict[str, RequestRecord]:
        lines = (self.out / "requests.jsonl").read_text().splitlines()
        records = [RequestRecord.model_validate_json(line) for line in lines]
        assert len({record.request_id for record in records}) == len(records)
        return {record.request_id: record for record in records}


def wait_for(event: threading.Event) -> None:
    if not event.wait(PATIENCE_S):
        raise TimeoutError("what this waits for did not happen")


def statuses(bench: Bench) -> dict[str, str]:
    return {name: record.status for name, record in bench.records().items()}


def test_the_next_request_is_served_while_a_picture_is_decoded(tmp_path: Path) -> None:
    second_begun = threading.Event()

    def decode(name: str) -> None:
        if name == "r0":
            wait_for(second_begun)

    def before(request: ImageRequest) -> None:
        if request.request_id == "r1":
            second_begun.set()

    bench = Bench(tmp_path, 2, decode, before=before)
    assert bench.start().outcome == "complete"
    assert statuses(bench) == {"r0": "ok", "r1": "ok"}
    with Image.open(bench.out / "images/r1-0.png") as image:
        assert image.getpixel((0, 0)) == (1, 0, 0)


def test_a_closed_loops_user_asks_again_when_the_picture_is_there_not_when_the_system_is_free(
    tmp_path: Path,
) -> None:
    """With one user nothing overlaps, however pictures come."""
    served_when_decoded: list[int] = []
    bench = Bench(tmp_path, 3)
    bench.system.decode = lambda name: served_when_decoded.append(len(bench.system.served))
    bench.start(load=ClosedLoad(max_concurrency=1))
    assert served_when_decoded == [1, 2, 3]
    records = bench.records()
    assert records["r1"].scheduled_at_s == records["r0"].finished_at_s
    assert records["r1"].queue_wait_s == pytest.approx(0.0)


def test_a_closed_loops_user_need_not_wait_for_the_others_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody_waits, third_begun = threading.Event(), threading.Event()
    take = ClosedQueue.take

    def noted_take(queue: ClosedQueue) -> Arrival | None:
        arrival = take(queue)
        if arrival is None:
            nobody_waits.set()
        return arrival

    def decode(name: str) -> None:
        if name == "r0":
            wait_for(nobody_waits)
        if name == "r1":  # the other user's; meanwhile the first one has its picture and asks again
            wait_for(third_begun)

    def before(request: ImageRequest) -> None:
        if request.request_id == "r2":
            third_begun.set()

    monkeypatch.setattr(ClosedQueue, "take", noted_take)
    bench = Bench(tmp_path, 3, decode, before=before)
    assert bench.start(load=ClosedLoad(max_concurrency=2)).outcome == "complete"
    assert statuses(bench) == {"r0": "ok", "r1": "ok", "r2": "ok"}


@pytest.mark.parametrize(
    ("error", "kind"),
    [(RequestError("all is NaN"), "RequestError"), (OSError("a bug"), "OSError")],
)
def test_a_picture_that_cannot_be_decoded_fails_its_request_alone(
    tmp_path: Path, error: Exception, kind: str
) -> None:
    def decode(name: str) -> None:
        if name == "r1":
            raise error

    bench = Bench(tmp_path, 3, decode)
    assert bench.start().outcome == "complete"
    assert statuses(bench) == {"r0": "ok", "r1": "failed", "r2": "ok"}
    failed = bench.records()["r1"]
    assert (failed.error_kind, failed.error) == (kind, str(error))
    assert failed.images == ()
    assert bench.system.finished == 3


def test_an_interrupt_while_a_picture_is_under_way_still_saves_and_records_it(tmp_path: Path) -> None:
    interrupted = threading.Event()

    def before(request: ImageRequest) -> None:
        if request.request_id == "r1" and not interrupted.is_set():
            interrupted.set()
            signal.raise_signal(signal.SIGINT)

    bench = Bench(tmp_path, 3, lambda name: wait_for(interrupted), before=before)
    assert bench.start().outcome == "interrupted"
    assert statuses(bench) == {"r0": "ok"}
    assert (bench.out / "images/r0-0.png").exists()
    assert bench.system.decoded_at_close == ["r0"]  # the system was not closed under it
    ended = resume_run(bench.out, bench.trace, clock=bench.clock, build=lambda config: bench.system)
    assert ended.outcome == "complete"
    assert statuses(bench) == {"r0": "ok", "r1": "ok", "r2": "ok"}
    assert bench.system.served == ["r0", "r1", "r2"]


def test_a_disk_that_takes_no_record_of_a_deferred_picture_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = run_folder.append_line

    def full(path: Path, line: str) -> None:
        if path.name == "requests.jsonl":
            raise run_folder.StorageError(f"cannot append to {path}: No space left on device")
        append(path, line)

    monkeypatch.setattr(run_folder, "append_line", full)
    ended = Bench(tmp_path, 3).start()
    assert ended.outcome == "stopped"
    assert "No space left" in str(ended.reason)


def test_decoding_counts_for_latency_but_not_as_time_in_which_the_system_was_occupied(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, 1, service_s=1.0, restore_s=0.5)
    bench.system.decode = lambda name: bench.clock.sleep(3.0)
    bench.start()
    record = bench.records()["r0"]
    assert record.latency_s == pytest.approx(4.5)
    assert record.device_seconds == pytest.approx(1.5)
    before_delivery = sum(seconds for name, seconds in record.stages.items() if name != "restore")
    assert record.queue_wait_s + before_delivery == pytest.approx(record.latency_s)


def test_a_system_can_see_what_has_arrived_and_waits_and_nothing_else(tmp_path: Path) -> None:
    seen: dict[str, list[str]] = {}
    bench = Bench(tmp_path, 0, service_s=1.0)
    times = [0.0, 100.0, 200.0, 5000.0]
    write_requests(bench.trace, [make_request(f"r{i}", at) for i, at in enumerate(times)])

    def look(request: ImageRequest) -> None:
        bench.clock.sleep(0.5)  # so that what arrives during service is seen too
        seen[request.request_id] = [one.request_id for one in bench.system.waiting(10)]

    bench.system.before = look
    bench.start()
    assert seen == {"r0": ["r1", "r2"], "r1": ["r2"], "r2": [], "r3": []}
    assert [one.request_id for one in bench.system.waiting(10)] == []
