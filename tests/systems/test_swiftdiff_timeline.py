"""What the engine claims to do at the same time is seen at the same time in its timeline."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from patience import PATIENCE_S
from serving import SwiftdiffSystem, engine, serve, stock, with_adapters
from trace_events import overlap, read_timeline, spans_named

from swiftdiff.adapters.store import AdapterStore, FetchedAdapter
from swiftdiff.pipeline.lane import Lane
from swiftdiff.systems.service import Service
from swiftdiff.telemetry.timeline import Timeline, spanned
from swiftdiff.telemetry.timeline_file import TimelineFile

Events = list[dict[str, Any]]


def _recorded(system: Any, folder: Path, controls: Path, *requests: Any) -> Events:
    timeline = Timeline()
    timeline.name_track("server")
    with TimelineFile(folder / "timeline.json", timeline):
        system.record_to(timeline)
        for request in requests:
            timeline.tell({"request_id": request.request_id})
            serve(system, request, controls)
    assert json.loads((folder / "timeline.json").read_text())
    return read_timeline(folder / "timeline.json")


def _names(events: Events) -> dict[int, str]:
    return {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}


def test_a_lora_that_loads_while_steps_are_computed_is_seen_beside_them(
    tiny_family: Path, controls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third_step = threading.Event()
    fetch: Callable[..., FetchedAdapter] = AdapterStore.fetch_lora
    before_step = Service.before_step

    def held_fetch(self: AdapterStore, adapter_id: str) -> FetchedAdapter:
        assert third_step.wait(PATIENCE_S)
        return fetch(self, adapter_id)

    def noting_step(self: Service, step: int) -> Any:
        if step == 2:
            third_step.set()
        return before_step(self, step)

    monkeypatch.setattr(AdapterStore, "fetch_lora", held_fetch)
    monkeypatch.setattr(Service, "before_step", noting_step)
    asked = with_adapters(0, ("neon",), "r1", num_inference_steps=6)
    with engine(tiny_family, latent_parallelism=True, bal_k=4) as system:
        events = _recorded(system, tmp_path, controls, asked)
    (load,) = spans_named(events, "lora_load")
    (patch,) = spans_named(events, "lora_patch")
    steps = spans_named(events, "step")
    assert [step["args"]["step"] for step in steps] == list(range(6))
    assert load["args"] == {"request_id": "r1", "adapter": "neon"}
    assert overlap(load, steps[0])
    assert overlap(load, steps[1])
    assert patch["args"]["step"] in (2, 3, 4)
    assert not any(overlap(patch, step) for step in steps)
    assert patch["ts"] >= load["ts"] + load["dur"]
    names = _names(events)
    assert names[load["tid"]].startswith("swiftdiff-load lora")
    assert names[patch["tid"]] == "server"


def test_two_lanes_that_compute_at_once_are_seen_side_by_side(tmp_path: Path) -> None:
    together = threading.Barrier(2)

    @spanned("unet_encode")
    def half() -> None:
        together.wait(PATIENCE_S)

    timeline = Timeline()
    with (
        TimelineFile(tmp_path / "timeline.json", timeline),
        Lane("cpu:0") as first,
        Lane("cpu:1") as second,
    ):
        first.timeline = second.timeline = timeline
        timeline.tell({"request_id": "r1", "step": 3})
        for future in (first.submit(half), second.submit(half)):
            future.result()
    events = read_timeline(tmp_path / "timeline.json")
    one, other = spans_named(events, "unet_encode")
    assert overlap(one, other)
    assert {_names(events)[span["tid"]] for span in (one, other)} == {"lane cpu:0", "lane cpu:1"}
    assert one["args"] == other["args"] == {"request_id": "r1", "step": 3}


def test_a_lane_that_waits_for_another_shows_what_for(tmp_path: Path) -> None:
    waits = threading.Event()

    @spanned("controlnet")
    def compute() -> torch.Tensor:
        assert waits.wait(PATIENCE_S)
        return torch.ones(2)

    @spanned("unet_decode")
    def decode(residual: torch.Tensor) -> None:
        assert residual.sum() == 2

    timeline = Timeline()
    with (
        TimelineFile(tmp_path / "timeline.json", timeline),
        Lane("cpu:0") as unet,
        Lane("cpu:1") as control,
    ):
        unet.timeline = control.timeline = timeline
        future = unet.submit(decode, control.submit(compute))
        waits.set()
        future.result()
    events = read_timeline(tmp_path / "timeline.json")
    (decoding,) = spans_named(events, "unet_decode")
    for wait in spans_named(events, "controlnet_wait"):  # none if the residual was there first
        assert wait["tid"] == decoding["tid"]
        assert overlap(wait, decoding)


def test_the_engine_names_every_part_of_a_request_and_about_which_one_it_is(
    tiny_family: Path, controls: Path, tmp_path: Path
) -> None:
    first = with_adapters(1, ("gold",), "first")
    second = with_adapters(2, ("gold", "neon"), "second")
    with engine(tiny_family, latent_parallelism=True, controlnet_offload=True, decode_lane="cpu:2") as system:
        events = _recorded(system, tmp_path, controls, first, second)
    for name in (
        "control_image",
        "controlnet_load",
        "controlnet",
        "conditioning",
        "denoise",
        "fetch",
        "lora_load",
        "lora_patch",
        "step",
        "text_encode",
        "unet_decode",
        "unet_encode",
        "vae_decode",
    ):
        about = {span["args"].get("request_id") for span in spans_named(events, name)}
        assert about == {"first", "second"}, name
    assert not spans_named(events, "work")
    tracks = _names(events)
    (one, other) = {tracks[span["tid"]] for span in spans_named(events, "unet_encode")}
    assert {one, other} == {"lane cpu:0", "lane cpu:1"}
    assert {tracks[span["tid"]] for span in spans_named(events, "vae_decode")} == {"lane cpu:2 decode"}
    denoise = spans_named(events, "denoise")
    for step in spans_named(events, "step"):
        assert any(span["ts"] <= step["ts"] and overlap(span, step) for span in denoise)


def test_stock_shows_its_stages_in_turn_with_the_steps_inside_denoising(
    tiny_family: Path, controls: Path, tmp_path: Path
) -> None:
    with stock(tiny_family) as system:
        events = _recorded(system, tmp_path, controls, with_adapters(1, ("gold",), "r1"))
    stages = ("control_image", "controlnet_load", "lora_load", "lora_patch", "text_encode", "denoise")
    spans = [spans_named(events, name)[0] for name in (*stages, "vae_decode")]
    assert spans == sorted(spans, key=lambda span: span["ts"])
    assert not any(overlap(one, next_) for one, next_ in itertools.pairwise(spans))
    assert [span["args"]["step"] for span in spans_named(events, "step")] == [0, 1]


def test_recording_changes_no_picture_and_can_be_turned_off_again(tiny_family: Path, controls: Path) -> None:
    from serving import are_equal

    from swiftdiff.telemetry.timeline import OFF

    asked = with_adapters(1, ("gold",), "r1")
    timeline = Timeline()
    with engine(tiny_family, latent_parallelism=True) as system:
        assert isinstance(system, SwiftdiffSystem)
        without = serve(system, asked, controls)
        system.record_to(timeline)
        recorded = serve(system, asked, controls)
        assert list(timeline.drain())
        system.record_to(OFF)
        again = serve(system, asked, controls)
    assert are_equal(without, recorded)
    assert are_equal(without, again)
    assert list(timeline.drain()) == []
