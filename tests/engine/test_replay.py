from __future__ import annotations

import errno
import itertools
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeSystem, fake_config, make_request, read_lines, write_requests
from PIL import Image

from swiftdiff.engine.clock import FakeClock
from swiftdiff.engine.options import ClosedLoad, RateLoad, ReplayOptions
from swiftdiff.engine.session import Ended, SessionObserver, resume_run, start_run
from swiftdiff.errors import AdapterError, StorageError, TraceError
from swiftdiff.request import ImageRequest, RequestRecord


class Bench:
    """A trace, a fake system and a fake clock, to be replayed."""

    def __init__(self, folder: Path, requests: list[ImageRequest], **system: Any) -> None:
        self.trace = write_requests(folder / "trace.jsonl", requests)
        self.out = folder / "run"
        self.clock = FakeClock(100.0)
        self.system = FakeSystem(self.clock, **system)
        self.observer = SessionObserver()

    def start(self, **options: Any) -> Ended:
        return start_run(
            self.trace,
            fake_config(),
            ReplayOptions(**options),
            self.out,
            argv=[],
            clock=self.clock,
            observer=self.observer,
            build=lambda config: self.system,
        )

    def resume(self, trace: Path | None = None) -> Ended:
        return resume_run(self.out, trace, clock=self.clock, build=lambda config: self.system)

    def records(self) -> list[RequestRecord]:
        lines = (self.out / "requests.jsonl").read_text().splitlines()
        return [RequestRecord.model_validate_json(line) for line in lines]


def _requests(count: int, gap_ms: float = 0.0) -> list[ImageRequest]:
    return [make_request(f"r{i}", i * gap_ms, seed=i) for i in range(count)]


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _gaps(records: list[RequestRecord]) -> list[float]:
    return [later.scheduled_at_s - earlier.scheduled_at_s for earlier, later in itertools.pairwise(records)]


def test_latency_counts_from_the_scheduled_arrival_not_from_the_start_of_service(tmp_path: Path) -> None:
    bench = Bench(tmp_path, _requests(3, gap_ms=200), service_s=1.0)
    assert bench.start().outcome == "complete"
    records = bench.records()
    assert [r.scheduled_at_s for r in records] == pytest.approx([0, 0.2, 0.4])
    assert [r.queue_wait_s for r in records] == pytest.approx([0, 0.8, 1.6])
    assert [r.latency_s for r in records] == pytest.approx([1.0, 1.8, 2.6])


def test_restoring_delays_the_next_request_and_costs_device_time_but_not_this_ones_latency(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, _requests(2), service_s=1.0, restore_s=0.5)
    bench.start()
    first, second = bench.records()
    assert (first.latency_s, first.stages["restore"], first.device_seconds) == pytest.approx((1.0, 0.5, 1.5))
    assert second.queue_wait_s == pytest.approx(1.5)


def test_stages_and_queue_wait_add_up_to_the_latency(tmp_path: Path) -> None:
    bench = Bench(tmp_path, _requests(3), restore_s=0.25)
    bench.start()
    for record in bench.records():
        before_delivery = sum(seconds for name, seconds in record.stages.items() if name != "restore")
        assert record.queue_wait_s + before_delivery == pytest.approx(record.latency_s)


def test_one_request_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    def fail_some(request: ImageRequest) -> None:
        if request.request_id == "r1":
            raise AdapterError("unknown LoRA 'glod'")
        if request.request_id == "r2":
            raise ZeroDivisionError("a bug")

    bench = Bench(tmp_path, _requests(4), before=fail_some)
    assert bench.start().outcome == "complete"
    records = bench.records()
    assert [r.status for r in records] == ["ok", "failed", "failed", "ok"]
    assert (records[1].error_kind, records[1].error) == ("AdapterError", "unknown LoRA 'glod'")
    assert (records[2].error_kind, records[2].error) == ("ZeroDivisionError", "a bug")
    assert bench.system.finished == 4  # the model is restored after failures too
    assert "ZeroDivisionError" in (bench.out / "errors.log").read_text()


@pytest.mark.parametrize(
    ("field", "value"), [("num_inference_steps", 0), ("width", 60), ("num_images", 0), ("seed", -1)]
)
def test_a_request_that_cannot_be_served_fails_alone_with_field_and_range(
    tmp_path: Path, field: str, value: int
) -> None:
    bench = Bench(tmp_path, [make_request("bad", **{field: value}), make_request("good")])
    bench.start()
    bad, good = bench.records()
    assert bad.status == "failed"
    assert bad.error is not None
    assert field in bad.error
    assert good.status == "ok"


def test_an_empty_trace_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [])
    with pytest.raises(TraceError, match="no requests"):
        bench.start()
    assert not bench.out.exists()


def test_pictures_are_saved_losslessly_under_the_requests_id(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [make_request("cat", seed=77, num_images=2)])
    bench.start()
    assert bench.records()[0].images == ("images/cat-0.png", "images/cat-1.png")
    with Image.open(bench.out / "images/cat-1.png") as image:
        assert image.getpixel((0, 0)) == (77, 0, 0)


def test_warmups_are_flagged_and_come_before_the_clock_of_the_load(tmp_path: Path) -> None:
    bench = Bench(tmp_path, _requests(2, gap_ms=5000))
    bench.start(num_warmups=3)
    records = bench.records()
    assert [(r.request_id, r.warmup) for r in records] == [
        ("r0", True),
        ("r1", True),
        ("r0", True),
        ("r0", False),
        ("r1", False),
    ]
    assert [r.queue_wait_s for r in records[3:]] == pytest.approx([0, 0], abs=1e-6)
    assert (bench.out / "images/warmup/r0-0.png").exists()


def test_limit_serves_the_first_requests_only(tmp_path: Path) -> None:
    bench = Bench(tmp_path, _requests(5))
    bench.start(limit=2)
    assert bench.system.served == ["r0", "r1"]


def test_a_closed_loop_keeps_the_asked_number_of_requests_under_way(tmp_path: Path) -> None:
    bench = Bench(tmp_path, _requests(4), service_s=1.0)
    bench.start(load=ClosedLoad(max_concurrency=2))
    assert [r.latency_s for r in bench.records()] == pytest.approx([1.0, 2.0, 2.0, 2.0])


def test_a_slo_option_replaces_the_traces_own(tmp_path: Path) -> None:
    requests = [
        make_request("a", slo_ms=10.0),
        make_request("b", 5000.0, slo_ms=1e6),
        make_request("c", 9000.0),
    ]
    plain = Bench(_folder(tmp_path / "plain"), requests)
    plain.start()
    assert [r.slo_met for r in plain.records()] == [False, True, None]
    strict = Bench(_folder(tmp_path / "strict"), requests)
    strict.start(slo_ms=1500.0)
    assert [r.slo_met for r in strict.records()] == [True, True, True]


def test_a_picture_that_finds_the_disk_full_fails_its_request_and_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Image.Image.save

    def full_once(self: Image.Image, path: Path, **options: Any) -> None:
        save(self, path, **options)
        if "r1" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_once)
    bench = Bench(tmp_path, _requests(3))
    bench.start()
    records = bench.records()
    assert [r.status for r in records] == ["ok", "failed", "ok"]
    assert records[1].error is not None
    assert "No space left on device" in records[1].error
    assert sorted(p.name for p in (bench.out / "images").iterdir()) == ["r0-0.png", "r2-0.png"]


def test_records_that_cannot_be_written_stop_the_run_with_what_finished_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from swiftdiff.engine import run_folder

    append = run_folder.append_line

    def full_later(path: Path, line: str) -> None:
        if '"r2"' in line:
            raise StorageError(f"cannot append to {path}: No space left on device")
        append(path, line)

    monkeypatch.setattr(run_folder, "append_line", full_later)
    bench = Bench(tmp_path, _requests(4))
    ended = bench.start()
    assert ended.outcome == "stopped"
    assert "No space left" in str(ended.reason)
    assert [r.request_id for r in bench.records()] == ["r0", "r1"]
    monkeypatch.undo()
    assert bench.resume().outcome == "complete"
    assert [r.request_id for r in bench.records()] == ["r0", "r1", "r2", "r3"]


def test_an_interrupt_keeps_what_finished_and_resume_serves_the_rest(tmp_path: Path) -> None:
    def interrupt(request: ImageRequest) -> None:
        if request.request_id == "r2" and len(bench.system.served) == 2:
            signal.raise_signal(signal.SIGINT)

    bench = Bench(tmp_path, _requests(4, gap_ms=1000), before=interrupt)
    assert bench.start().outcome == "interrupted"
    assert [r.request_id for r in bench.records()] == ["r0", "r1"]
    bench.system.served.append("so that it is not interrupted again")
    bench.clock.sleep(3600)
    assert bench.resume().outcome == "complete"
    records = bench.records()
    assert [r.request_id for r in records] == ["r0", "r1", "r2", "r3"]
    assert records[2].queue_wait_s == pytest.approx(0, abs=1e-6)  # the hour in between is nobody's latency
    assert records[3].scheduled_at_s - records[2].scheduled_at_s == pytest.approx(1.0)
    assert records[2].scheduled_at_s >= records[1].finished_at_s
    assert [s["outcome"] for s in read_lines(bench.out / "sessions.jsonl")] == ["interrupted", "complete"]


def test_an_interrupt_during_restore_still_records_the_finished_request(tmp_path: Path) -> None:
    bench = Bench(tmp_path, _requests(2))
    finish = bench.system.finish

    def interrupted_finish() -> None:
        signal.raise_signal(signal.SIGINT)
        finish()

    bench.system.finish = interrupted_finish  # type: ignore[method-assign]
    assert bench.start().outcome == "interrupted"
    assert [r.request_id for r in bench.records()] == ["r0"]


def test_resuming_passes_over_a_line_that_a_crash_left_torn(tmp_path: Path) -> None:
    bench = Bench(tmp_path, _requests(3))
    bench.start()
    path = bench.out / "requests.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert bench.resume().outcome == "complete"
    assert [r.request_id for r in bench.records()] == ["r0", "r1", "r2"]


def test_a_damaged_line_in_the_middle_of_the_records_is_an_error(tmp_path: Path) -> None:
    bench = Bench(tmp_path, _requests(3))
    bench.start()
    path = bench.out / "requests.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "garbage\n" + lines[2])
    with pytest.raises(StorageError, match=r"requests\.jsonl:2"):
        bench.resume()


def test_resuming_with_a_changed_trace_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, _requests(2))
    bench.start(limit=1)
    write_requests(bench.trace, _requests(3))
    with pytest.raises(StorageError, match="not the trace"):
        bench.resume()


def test_resuming_finds_a_trace_that_was_moved(tmp_path: Path) -> None:
    bench = Bench(tmp_path, _requests(2))
    bench.start()
    (bench.out / "requests.jsonl").write_text("")
    moved = bench.trace.rename(tmp_path / "moved.jsonl")
    assert bench.resume(moved).outcome == "complete"
    assert len(bench.records()) == 2


def test_resuming_a_complete_run_loads_no_model(tmp_path: Path) -> None:
    bench = Bench(tmp_path, _requests(2))
    bench.start()
    ended = resume_run(bench.out, build=lambda config: pytest.fail("a model was loaded"))
    assert ended.outcome == "complete"


def test_random_arrivals_go_on_where_they_were_when_resumed(tmp_path: Path) -> None:
    load = RateLoad(request_rate=1, seed=5)
    whole = Bench(tmp_path, _requests(6), service_s=0.01)
    whole.start(load=load)
    gaps = _gaps(whole.records()[3:])
    path = whole.out / "requests.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    whole.resume()
    assert _gaps(whole.records()[3:]) == pytest.approx(gaps)


def test_a_folder_with_something_in_it_is_never_written_to(tmp_path: Path) -> None:
    bench = Bench(tmp_path, _requests(1))
    bench.out.mkdir()
    (bench.out / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError, match="not empty"):
        bench.start()
    assert [p.name for p in bench.out.iterdir()] == ["thesis.txt"]


def test_a_run_says_what_it_was_made_with(tmp_path: Path) -> None:
    bench = Bench(tmp_path, _requests(1))
    bench.start()
    info = json.loads((bench.out / "run.json").read_text())
    environment = json.loads((bench.out / "environment.json").read_text())
    assert len(info["trace_sha256"]) == 64
    assert environment["packages"]["diffusers"]
    assert environment["cores"] >= 1
    assert 'name = "fake"' in (bench.out / "config.toml").read_text()
    assert bench.system.closed
