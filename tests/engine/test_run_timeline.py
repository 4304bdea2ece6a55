"""Every run leaves a timeline, also one that was interrupted, resumed or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeSystem, fake_config, make_request, read_lines, write_requests
from patience import PATIENCE_S, until
from trace_events import overlap, read_timeline, spans_named

from swiftdiff.engine.clock import FakeClock, RealClock
from swiftdiff.engine.options import ReplayOptions
from swiftdiff.engine.session import resume_run, start_run
from swiftdiff.report.request_timeline import read_request_timeline, slowest_request
from swiftdiff.request import ImageRequest
from swiftdiff.systems.base import Served

SLOW_CLI = Path(__file__).parent.parent / "support" / "slow_cli.py"


def _replay(folder: Path, system: FakeSystem, count: int = 3, **options: Any) -> Path:
    trace = write_requests(folder / "trace.jsonl", [make_request(f"r{i}", seed=i) for i in range(count)])
    out = folder / "run"
    start_run(
        trace,
        fake_config(),
        ReplayOptions(**options),
        out,
        argv=[],
        clock=system.clock,
        build=lambda config: system,
    )
    return out


def test_a_run_shows_each_request_on_the_server_and_as_a_whole(tmp_path: Path) -> None:
    out = _replay(tmp_path, FakeSystem(FakeClock(50.0), service_s=1.0, restore_s=0.25), num_warmups=1)
    events = read_timeline(out / "timeline.json")
    served = [(span["args"]["request_id"], span["ts"]) for span in spans_named(events, "serve")]
    assert served == [("r0", 0.0), ("r0", 1.25e6), ("r1", 2.5e6), ("r2", 3.75e6)]
    assert [span["dur"] for span in spans_named(events, "restore")] == [0.25e6] * 4
    whole = [(e["id"], e["ph"], e["ts"]) for e in events if e["name"] == "request" and e["id"] == "r2"]
    assert whole == [("r2", "b", 1.25e6), ("r2", "e", 4.75e6)]


def test_a_request_is_read_back_from_its_arrival_without_its_warm_up(tmp_path: Path) -> None:
    out = _replay(tmp_path, FakeSystem(FakeClock(50.0), service_s=1.0, restore_s=0.25), num_warmups=1)
    slowest = slowest_request("fake", out)
    assert slowest is not None
    assert (slowest.request_id, slowest.latency_s) == ("r2", pytest.approx(3.5))
    spans = {(span.track, span.name): (span.began_s, span.ended_s) for span in slowest.spans}
    assert spans["request", "queue"] == pytest.approx((0.0, 2.5))
    assert spans["server", "denoise"] == pytest.approx((2.5, 3.5))
    assert spans["server", "restore"] == pytest.approx((3.5, 3.75))
    first = next(r for r in _records(out) if r.request_id == "r0" and not r.warmup)
    timeline = read_request_timeline("fake", out, first)
    assert timeline is not None
    assert sum(span.name == "denoise" for span in timeline.spans) == 1


def _records(out: Path) -> list[Any]:
    from swiftdiff.engine.run_folder import RunFolder

    return list(RunFolder(out).read_records())


def test_a_run_without_a_timeline_has_none_to_show(tmp_path: Path) -> None:
    out = _replay(tmp_path, FakeSystem(FakeClock()))
    (out / "timeline.json").unlink()
    assert slowest_request("fake", out) is None


def test_decoding_beside_the_next_request_is_seen_as_an_overlap(tmp_path: Path) -> None:
    second_begun, first_saved = threading.Event(), threading.Event()

    class Deferring(FakeSystem):
        def serve(self, request: ImageRequest, images_root: Path) -> Served:
            if request.request_id == "r1":
                second_begun.set()
                assert first_saved.wait(PATIENCE_S)
            served = super().serve(request, images_root)

            def images() -> list[Any]:
                if request.request_id == "r0":
                    assert second_begun.wait(PATIENCE_S)
                assert isinstance(served.images, list)
                return served.images

            return Served(images, served.stages, served.bytes_loaded)

    watcher = threading.Thread(target=_wait_for_record, args=(tmp_path / "run", first_saved))
    watcher.start()
    out = _replay(tmp_path, Deferring(RealClock(), service_s=0.0), count=2)
    watcher.join()
    events = read_timeline(out / "timeline.json")
    (save,) = [s for s in spans_named(events, "image_save") if s["args"]["request_id"] == "r0"]
    (serve,) = [s for s in spans_named(events, "serve") if s["args"]["request_id"] == "r1"]
    assert overlap(save, serve)
    assert save["tid"] != serve["tid"]


def _wait_for_record(out: Path, saved: threading.Event) -> None:
    records = out / "requests.jsonl"
    until(lambda: records.is_file() and records.stat().st_size)
    saved.set()


def test_a_killed_run_leaves_a_timeline_and_resuming_goes_on_with_it(tmp_path: Path) -> None:
    trace = write_requests(tmp_path / "trace.jsonl", [make_request(f"r{i}") for i in range(4)])
    out = tmp_path / "run"
    command = [sys.executable, str(SLOW_CLI), "2", "replay", str(trace), "--out", str(out)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        timeline = out / "timeline.json"
        until(lambda: timeline.is_file() and timeline.read_text().count('"serve"') == 2)
        process.send_signal(signal.SIGKILL)
    left = read_timeline(timeline)
    assert spans_named(left, "serve")
    resume_run(out, clock=FakeClock(), build=lambda config: FakeSystem(FakeClock()))
    events = read_timeline(timeline)
    assert timeline.read_text().rstrip().endswith("]")
    assert {event["pid"] for event in events} == {1, 2}
    assert {span["args"]["request_id"] for span in spans_named(events, "serve")} == {"r0", "r1", "r2", "r3"}


def test_a_timeline_that_cannot_be_written_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("swiftdiff.telemetry.timeline_file.TimelineFile._open", refuse)
    out = _replay(tmp_path, FakeSystem(FakeClock()))
    assert [line["status"] for line in read_lines(out / "requests.jsonl")] == ["ok"] * 3
    assert "No space left on device" in (out / "errors.log").read_text()
