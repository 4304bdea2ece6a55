"""Sweeps of the real engine: of a tiny model, and of the embedded one by a few steps."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patience import PATIENCE_S
from PIL import Image
from serving import draw_controls, engine, engine_config, serve, with_adapters

from swiftdiff.adapters.bal import ArrivingLoras
from swiftdiff.adapters.store import FetchedAdapter
from swiftdiff.compare import sweep_k_session
from swiftdiff.compare.sweep_k_engine import Drawn, SweepEngine, SweepStore
from swiftdiff.compare.sweep_k_folder import SweepFolder, SweepRecord
from swiftdiff.compare.sweep_k_options import SweepOptions
from swiftdiff.compare.sweep_k_report import write_sweep_report
from swiftdiff.compare.sweep_k_requests import plan_requests, with_lora
from swiftdiff.compare.sweep_k_session import SweepEnd, resume_sweep, start_sweep
from swiftdiff.errors import StorageError
from swiftdiff.trace import scan_trace
from swiftdiff.trace.writer import write_trace

KS = (0, 1, 3)


def make_options(family: Path | str, **fields: Any) -> SweepOptions:
    values = {
        "config": engine_config(family),
        "loras": ("neon", "gold"),  # one changes the text encoders too
        "ks": KS,
        "num_inference_steps": 4,
        "prompts": 2,
        "repeats": 1,
        "load_time_ms": 20.0,
    }
    return SweepOptions.model_validate(values | fields)


@pytest.fixture(scope="module")
def swept(tiny_family: Path, tmp_path_factory: pytest.TempPathFactory) -> SweepEnd:
    return start_sweep(make_options(tiny_family), tmp_path_factory.mktemp("sweep") / "out", argv=["test"])


def of_part(records: list[SweepRecord], part: str) -> dict[tuple[str, int, int], SweepRecord]:
    return {(each.lora, each.k, each.index): each for each in records if each.part == part}


def test_every_picture_has_its_lora_from_exactly_step_k_on(swept: SweepEnd) -> None:
    assert swept.outcome == "complete"
    quality = of_part(swept.folder.read_records(), "quality")
    assert set(quality) == {(lora, k, i) for lora in ("neon", "gold") for k in KS for i in range(2)}
    assert all(record.step_patched == record.k for record in quality.values())
    for lora in ("neon", "gold"):
        for index in range(2):
            first, *late = (quality[lora, k, index] for k in KS)
            assert (first.ssim, first.mean_square, first.max_levels) == (1, 0, 0)
            assert all((record.mean_square or 0) > 0 for record in late)
    assert all(record.style is None for record in quality.values())  # "neon" here is no style of the judges'


def test_the_pictures_are_the_engines_own(swept: SweepEnd, tiny_family: Path) -> None:
    request = with_lora(plan_requests(swept.folder.read_options())[1], "gold")
    with engine(tiny_family) as system:
        (expected,) = serve(system, request, Path())
    found = np.asarray(Image.open(swept.folder.path / "images/gold/k00-001.png"))
    assert np.array_equal(found, expected)


def test_a_lora_that_takes_long_lands_at_its_bound(
    tiny_family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_waited_for = threading.Event()
    fetch, wait = SweepStore.fetch_lora, ArrivingLoras._wait

    def late(self: SweepStore, adapter_id: str) -> FetchedAdapter:
        fetched = fetch(self, adapter_id)
        assert is_waited_for.wait(PATIENCE_S)
        is_waited_for.clear()
        return fetched

    def noted_wait(self: ArrivingLoras) -> float:
        is_waited_for.set()
        return wait(self)

    monkeypatch.setattr(SweepStore, "fetch_lora", late)
    monkeypatch.setattr(ArrivingLoras, "_wait", noted_wait)
    options = make_options(tiny_family)
    request = with_lora(plan_requests(options)[0], "neon")
    engine = SweepEngine(options.serving, options.emulation)
    try:
        drawn = [engine.serve_delayed(request, k, Path(), turn=0) for k in KS]
    finally:
        engine.close()
    assert [each.step_patched for each in drawn] == list(KS)
    assert all(each.load_s >= 0.02 and each.latency_s >= each.wait_s > 0 for each in drawn)


def test_every_k_meets_the_same_load_times(tiny_family: Path) -> None:
    options = make_options(tiny_family)
    emulate = options.emulation.model_copy(update={"latency_ms": 30.0, "jitter": 2.0})
    request = with_lora(plan_requests(options)[0], "neon")
    slept: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        engine = SweepEngine(options.serving, emulate)
        patch.setattr("swiftdiff.compare.sweep_k_engine.time.sleep", slept.append)
        try:
            for turn in (0, 1):
                for k in KS:
                    engine.serve_delayed(request, k, Path(), turn)
        finally:
            engine.close()
    assert slept[0] == slept[1] == slept[2] != slept[3] == slept[4] == slept[5]


def test_a_sweep_goes_on_where_it_was_cut_off_and_measures_nothing_twice(
    swept: SweepEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = swept.folder.raw_path.read_bytes().splitlines(keepends=True)
    path = tmp_path / "cut"
    shutil.copytree(swept.folder.path, path)
    (path / "raw.jsonl").write_bytes(b"".join(whole[:-4]) + whole[-4][:30])  # the last line is torn
    served: list[tuple[str, int]] = []
    serve_delayed = SweepEngine.serve_delayed

    def noting(self: SweepEngine, request: Any, k: int, images_root: Path, turn: int) -> Drawn:
        served.append((request.loras[0].id, k))
        return serve_delayed(self, request, k, images_root, turn)

    monkeypatch.setattr(SweepEngine, "serve_delayed", noting)
    ended = resume_sweep(path)
    assert ended.outcome == "complete"
    assert served[1:] == [("neon", 3), ("gold", 0), ("gold", 1), ("gold", 3)]  # the first one warms up
    assert ended.folder.raw_path.read_bytes().startswith(b"".join(whole[:-4]))
    assert {record.key for record in ended.folder.read_records()} == {
        record.key for record in swept.folder.read_records()
    }
    monkeypatch.setattr(sweep_k_session, "SweepEngine", None)  # now there is nothing to start it for
    assert resume_sweep(path).outcome == "complete"


def test_a_traces_controlnets_stay_in_its_requests(tiny_family: Path, tmp_path: Path) -> None:
    draw_controls(tmp_path)
    trace = tmp_path / "t.jsonl"
    write_trace(trace, [with_adapters(2, ("gold",), "with"), with_adapters(0, (), "without")])
    options = make_options(
        tiny_family,
        loras=("neon",),
        repeats=0,
        trace=str(trace),
        trace_sha256=scan_trace(trace).sha256,
    )
    ended = start_sweep(options, tmp_path / "out", argv=[])
    records = ended.folder.read_records()
    assert [(record.error, record.step_patched) for record in records] == [
        (None, k) for k in KS for _ in "ab"
    ]
    with engine(tiny_family) as system:
        (expected,) = serve(system, with_lora(plan_requests(options)[0], "neon"), tmp_path)
    assert np.array_equal(ended.folder.read_picture("images/neon/k00-with.png"), expected)


def test_ctrl_c_keeps_what_was_measured(
    tiny_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_patched_at = SweepEngine.serve_patched_at

    def interrupted(self: SweepEngine, request: Any, k: int, images_root: Path) -> Drawn:
        if k == 3:
            raise KeyboardInterrupt
        return serve_patched_at(self, request, k, images_root)

    monkeypatch.setattr(SweepEngine, "serve_patched_at", interrupted)
    ended = start_sweep(make_options(tiny_family), tmp_path / "out", argv=[])
    assert ended.outcome == "interrupted"
    assert len(ended.folder.read_records()) == 4


def test_a_damaged_lora_is_given_up_and_the_others_are_measured(
    tiny_family_copy: Path, tmp_path: Path
) -> None:
    (tiny_family_copy / "loras/neon.safetensors").write_bytes(b"no LoRA")
    options = make_options(tiny_family_copy, prompts=1, repeats=0)
    ended = start_sweep(options, tmp_path / "out", argv=[])
    assert ended.outcome == "complete"
    result = write_sweep_report(ended.folder, complete=True)
    assert len(result.failures) == 1
    assert result.failures[0].startswith("neon: ")
    assert [len(each.points) for each in result.loras] == [0, 3]


def test_a_sweep_is_not_resumed_with_another_lora_or_other_weights(
    tiny_family_copy: Path, tmp_path: Path
) -> None:
    path = tmp_path / "out"
    start_sweep(make_options(tiny_family_copy, prompts=1, repeats=0), path, argv=[])
    loras = tiny_family_copy / "loras"
    (loras / "gold.safetensors").write_bytes((loras / "kohya.safetensors").read_bytes())
    raw = path / "raw.jsonl"
    raw.write_bytes(b"".join(raw.read_bytes().splitlines(keepends=True)[:-1]))
    before = raw.read_bytes()
    with pytest.raises(StorageError, match="begun with other files"):
        resume_sweep(path)
    assert raw.read_bytes() == before


def test_a_lora_that_failed_is_measured_once_it_is_repaired(tiny_family_copy: Path, tmp_path: Path) -> None:
    file = tiny_family_copy / "loras/neon.safetensors"
    whole = file.read_bytes()
    file.write_bytes(b"no LoRA")
    options = make_options(tiny_family_copy, loras=("neon",), prompts=1, repeats=0)
    start_sweep(options, tmp_path / "out", argv=[])
    file.write_bytes(whole)
    (neon,) = write_sweep_report(resume_sweep(tmp_path / "out").folder, complete=True).loras
    assert neon.error is None
    assert len(neon.points) == 3


def test_a_folder_that_holds_something_or_is_no_sweeps_is_refused(tiny_family: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(StorageError, match="is not empty; name another"):
        start_sweep(make_options(tiny_family), tmp_path, argv=[])
    with pytest.raises(StorageError, match="is no sweep's folder"):
        resume_sweep(tmp_path)


def test_damage_in_the_middle_of_the_records_is_refused(swept: SweepEnd, tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    shutil.copytree(swept.folder.path, path)
    lines = (path / "raw.jsonl").read_bytes().splitlines(keepends=True)
    (path / "raw.jsonl").write_bytes(b"".join([lines[0], b"{}\n", *lines[1:]]))
    with pytest.raises(StorageError, match=r"raw\.jsonl:2: the record is damaged"):
        SweepFolder.open(path)


def test_late_loras_of_the_embedded_model_lose_their_style(tmp_path: Path) -> None:
    options = make_options(
        "shapes", loras=("stripes",), ks=(0, 5), num_inference_steps=6, prompts=1, repeats=0
    )
    ended = start_sweep(options, tmp_path / "out", argv=[])
    (stripes,) = write_sweep_report(ended.folder, complete=True).loras
    first, last = stripes.points
    assert first.scores["style"].value > 0.8
    assert last.scores["style"].value < 0.2
    assert last.scores["attributes"].count == 1
    assert stripes.largest_k == 0
