"""What is recorded, by whom, and what its file looks like to a viewer, whole or cut short."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_events import check_events, read_timeline, spans_named

from swiftdiff.engine.clock import FakeClock
from swiftdiff.telemetry.timeline import OFF, REQUESTS, Timeline, span_name, spanned
from swiftdiff.telemetry.timeline_file import TimelineFile, read_events


def _record(timeline: Timeline, clock: FakeClock, request_id: str = "r1") -> None:
    """Two steps within the denoising of a request that waited for a second."""
    timeline.tell({"request_id": request_id})
    began = clock.now()
    with timeline.span("denoise"):
        for step in range(2):
            timeline.tell({"request_id": request_id, "step": step})
            with timeline.span("step"):
                clock.sleep(0.5)
        timeline.tell({"request_id": request_id})
    timeline.add_request(request_id, "ok", began - 1.0, began, clock.now())


def test_a_whole_file_is_json_in_which_steps_lie_inside_denoising(tmp_path: Path) -> None:
    clock = FakeClock(3.0)
    timeline = Timeline(clock.now)
    timeline.name_track("server")
    with TimelineFile(tmp_path / "timeline.json", timeline):
        _record(timeline, clock)
    events = json.loads((tmp_path / "timeline.json").read_text())
    check_events(events)
    assert [(span["ts"], span["dur"], span["args"]) for span in spans_named(events, "step")] == [
        (3.0e6, 0.5e6, {"request_id": "r1", "step": 0}),
        (3.5e6, 0.5e6, {"request_id": "r1", "step": 1}),
    ]
    (denoise,) = spans_named(events, "denoise")
    assert (denoise["ts"], denoise["dur"]) == (3.0e6, 1.0e6)
    queue = [(event["ph"], event["ts"]) for event in events if event["name"] == "queue"]
    assert queue == [("b", 2.0e6), ("e", 3.0e6)]


def test_each_thread_has_a_track_with_its_name_and_same_names_are_told_apart(tmp_path: Path) -> None:
    timeline = Timeline()
    timeline.name_track("server")

    def work() -> None:
        timeline.add("unet_encode", 1.0, 2.0, {})
        timeline.add("unet_decode", 2.0, 3.0, {})

    for name in ("lane cpu", "lane cpu", "lane cuda:0"):
        thread = threading.Thread(target=work, name=name)
        thread.start()
        thread.join()
    with TimelineFile(tmp_path / "timeline.json", timeline):
        timeline.add("serve", 0.0, 4.0, {})
    events = read_timeline(tmp_path / "timeline.json")
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert list(names.values()) == [
        "server",
        "lane cpu",
        "lane cpu #2",
        "lane cuda:0 (time of its thread, not of the GPU)",
    ]
    tracks = {names[span["tid"]] for span in spans_named(events, "unet_encode")}
    assert tracks == set(names.values()) - {"server"}


def test_what_a_run_that_was_cut_short_left_can_be_opened(tmp_path: Path) -> None:
    clock = FakeClock()
    timeline = Timeline(clock.now)
    file = TimelineFile(tmp_path / "timeline.json", timeline)
    for index in range(3):
        _record(timeline, clock, f"r{index}")
        file.flush()
    assert not (tmp_path / "timeline.json").read_text().rstrip().endswith("]")
    events = read_timeline(tmp_path / "timeline.json")
    assert [span["args"]["request_id"] for span in spans_named(events, "denoise")] == ["r0", "r1", "r2"]
    file.close()
    assert read_timeline(tmp_path / "timeline.json") == events


@given(kept=st.integers(0, 3000))
def test_a_session_goes_on_after_whatever_an_earlier_one_left(
    tmp_path_factory: pytest.TempPathFactory, kept: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "timeline.json"
    clock = FakeClock()
    with TimelineFile(path, first := Timeline(clock.now)):
        _record(first, clock, "r0")
        _record(first, clock, "é\n")
    whole = path.read_bytes()
    before = json.loads(whole)
    path.write_bytes(whole[:kept])
    with TimelineFile(path, second := Timeline(clock.now)):
        _record(second, clock, "r2")
    events = json.loads(path.read_text())
    check_events([event for event in events if event["ph"] in "MX"])  # a pair may have been torn apart
    assert [span["args"]["request_id"] for span in spans_named(events, "denoise")][-1] == "r2"
    begin = max(index for index, event in enumerate(events) if event["name"] == "process_name")
    assert events[:begin] == before[:begin]
    assert len({event["pid"] for event in events}) == (2 if begin else 1)


def test_a_torn_last_line_is_passed_over_when_reading(tmp_path: Path) -> None:
    clock = FakeClock()
    with TimelineFile(tmp_path / "timeline.json", timeline := Timeline(clock.now)):
        _record(timeline, clock)
    data = (tmp_path / "timeline.json").read_bytes()
    whole = list(read_events(tmp_path / "timeline.json"))
    (tmp_path / "timeline.json").write_bytes(data[:-10])
    assert list(read_events(tmp_path / "timeline.json")) == whole[:-1]
    assert whole == json.loads(data)


def test_spans_that_find_no_room_are_counted_and_the_file_says_so(tmp_path: Path) -> None:
    timeline = Timeline(capacity=10)
    with TimelineFile(tmp_path / "timeline.json", timeline):
        for index in range(25):
            timeline.add("step", index, index + 1, {"step": index})
        assert timeline.dropped == 15
    events = read_timeline(tmp_path / "timeline.json")
    assert [span["args"]["step"] for span in spans_named(events, "step")] == list(range(10))
    assert events[-1]["args"] == {"labels": "15 spans left out"}


def test_a_file_that_is_long_enough_takes_no_more(tmp_path: Path) -> None:
    timeline = Timeline()
    with TimelineFile(tmp_path / "timeline.json", timeline, max_bytes=2000) as file:
        for index in range(1000):
            timeline.add("step", index, index + 1, {"step": index})
            file.flush()
    assert (tmp_path / "timeline.json").stat().st_size < 2500
    events = read_timeline(tmp_path / "timeline.json")
    kept = len(spans_named(events, "step"))
    assert events[-1]["args"] == {"labels": f"{1000 - kept} spans left out"}


@pytest.mark.parametrize("place", ["folder-that-is-not-there/timeline.json", "a-folder"])
def test_a_file_that_cannot_be_written_ends_the_timeline_and_nothing_else(tmp_path: Path, place: str) -> None:
    (tmp_path / "a-folder").mkdir()
    timeline = Timeline()
    with TimelineFile(tmp_path / place, timeline) as file:
        timeline.add("step", 0.0, 1.0, {})
        file.flush()
        assert isinstance(file.failure, OSError)
    assert list(timeline.drain()) == []


def test_a_full_disk_leaves_what_was_written_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    file = TimelineFile(tmp_path / "timeline.json", timeline := Timeline(clock.now))
    _record(timeline, clock, "r0")
    file.flush()
    opened = file._file
    assert opened is not None
    half_a_write = type("Full", (), {})()
    half_a_write.write = lambda data: opened.write(data[:7])
    half_a_write.truncate, half_a_write.close = opened.truncate, opened.close
    monkeypatch.setattr(file, "_file", half_a_write)
    _record(timeline, clock, "r1")
    file.flush()
    assert "disk full" in str(file.failure)
    file.close()
    events = read_timeline(tmp_path / "timeline.json")
    assert [span["args"]["request_id"] for span in spans_named(events, "denoise")] == ["r0"]


def test_work_for_another_request_is_noted_as_about_that_one() -> None:
    timeline = Timeline()
    timeline.tell({"request_id": "served"})
    with pytest.raises(ValueError, match="broken"), timeline.about({"request_id": "waiting"}):
        assert timeline.context == {"request_id": "waiting"}
        raise ValueError("broken")
    assert timeline.context == {"request_id": "served"}


def test_a_timeline_that_is_off_keeps_nothing() -> None:
    OFF.tell({"request_id": "r1"})
    with OFF.span("serve"):
        OFF.add_request("r1", "ok", 0.0, 1.0, 2.0)
    assert list(OFF.drain()) == []
    assert OFF.context == {}


def test_threads_that_record_at_once_lose_nothing() -> None:
    timeline = Timeline()
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        for index in range(2000):
            timeline.add("step", index, index + 1, {})

    threads = [threading.Thread(target=work, name=f"lane {index}") for index in range(4)]
    for thread in threads:
        thread.start()
    drained = []
    while any(thread.is_alive() for thread in threads):
        drained += list(timeline.drain())
    drained += list(timeline.drain())
    assert len(drained) == 8000
    by_track = {span.track for span in drained}
    assert len(by_track) == 4
    assert REQUESTS not in by_track
    for track in by_track:
        assert [span.began_s for span in drained if span.track == track] == list(range(2000))


def test_methods_and_classes_carry_the_name_that_they_were_given() -> None:
    @spanned("conditioning")
    class Told:
        @spanned("unet_encode")
        def encode(self) -> None: ...

    assert span_name(Told) == "conditioning"
    assert span_name(Told().encode) == "unet_encode"
    assert span_name(print) == "work"
