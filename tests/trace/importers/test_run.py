from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from importing import imported, nothing, refusal, write

from swiftdiff.errors import ConfigError, StorageError, TraceError
from swiftdiff.scenes.captions import parse_caption
from swiftdiff.trace import read_provenance
from swiftdiff.trace.content import ContentPool
from swiftdiff.trace.importers import IMPORTERS, ImportOptions
from swiftdiff.trace.importers import run as run_module
from swiftdiff.trace.importers.run import import_trace


def source(folder: Path, count: int = 3) -> Path:
    rows = "".join(f"{1_700_000_000 + i},edges,\n" for i in range(count))
    return write(folder / "t.csv", f"timestamp,controlnets,slo_ms\n{rows}")


def test_what_the_source_lacks_is_filled_in_and_said(tmp_path: Path) -> None:
    requests, summary = imported(
        "csv", source(tmp_path), steps=4, guidance=3.0, width=64, slo_ms=500.0, seed=9
    )
    assert {(r.num_inference_steps, r.guidance_scale, r.width, r.height, r.slo_ms) for r in requests} == {
        (4, 3.0, 64, None, 500.0)
    }
    assert all(parse_caption(r.prompt) is not None for r in requests)
    assert [r.seed for r in requests] == [9, 10, 11]
    filled = summary.provenance.filled_in
    assert (filled["num_inference_steps"], filled["height"], filled["slo_ms"]) == (
        "4",
        "the model's own",
        "500",
    )
    assert read_provenance(summary.trace) == summary.provenance


def test_the_same_seed_gives_the_same_bytes_whatever_the_folder(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        imported("csv", source(tmp_path / name), seed=5)
        files = sorted(file for file in (tmp_path / name / "out").rglob("*") if file.is_file())
        made.append([(file.name, file.read_bytes()) for file in files])
    assert made[0] == made[1]
    assert len(made[0]) == 4


def test_prompts_of_a_file_are_used_in_turn_and_the_file_is_a_source(tmp_path: Path) -> None:
    prompts = write(tmp_path / "prompts.txt", "a cat\n\n a dog \n")
    requests, summary = imported("csv", source(tmp_path), prompts=prompts)
    assert [r.prompt for r in requests] == ["a cat", "a dog", "a cat"]
    assert [file.name for file in summary.provenance.sources] == ["t.csv", "prompts.txt"]
    assert summary.provenance.options == {"prompts": "prompts.txt"}
    assert "no prompts; the file must have one a line" in refusal_of_prompts(tmp_path, "\n")


def refusal_of_prompts(folder: Path, text: str) -> str:
    with pytest.raises(TraceError) as caught:
        imported("csv", source(folder), prompts=write(folder / "none.txt", text))
    return str(caught.value)


def test_a_compressed_trace_can_be_written(tmp_path: Path) -> None:
    output = tmp_path / "trace.jsonl.gz"
    import_trace("csv", source(tmp_path), output, ImportOptions(), nothing)
    assert output.read_bytes()[:2] == b"\x1f\x8b"
    assert (tmp_path / "trace-controls" / "00-edges.png").is_file()
    assert read_provenance(output) is not None


def test_a_source_is_never_overwritten(tmp_path: Path) -> None:
    path = source(tmp_path)
    with pytest.raises(ConfigError, match="would overwrite what it is made from"):
        import_trace("csv", path, tmp_path / "x" / ".." / "t.csv", ImportOptions(), nothing)
    assert path.read_text().startswith("timestamp")


def test_an_unknown_format_and_a_missing_source_are_refused(tmp_path: Path) -> None:
    assert refusal("kats", source(tmp_path)).startswith("unknown format 'kats'; did you mean 'katz'?")
    for format_name in IMPORTERS:
        message = refusal(format_name, tmp_path / "missing")
        assert message.startswith(f"cannot read trace {tmp_path / 'missing'}: No such file"), format_name


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write trace"):
        import_trace("csv", source(tmp_path), tmp_path / "file" / "t.jsonl", ImportOptions(), nothing)


def test_control_images_that_cannot_be_written_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: ContentPool, folder: Path) -> int:
        raise StorageError("cannot write control images: No space left on device")

    monkeypatch.setattr(ContentPool, "write_images", full)
    assert "No space left" in refusal("csv", source(tmp_path))


def test_an_interrupted_import_leaves_the_old_trace_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "trace.jsonl").write_text("old")

    def interrupted(*arguments: object) -> Iterator[None]:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "check_order", interrupted)
    with pytest.raises(KeyboardInterrupt):
        imported("csv", path)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["trace.jsonl"]
    assert (tmp_path / "out" / "trace.jsonl").read_text() == "old"


@pytest.mark.parametrize("sort", [False, True])
def test_memory_does_not_grow_with_the_number_of_requests(
    sort: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swiftdiff.trace.importers.sorting.RUN_LENGTH", 500)
    path = source(tmp_path, 10_000)
    tracemalloc.start()
    import_trace("csv", path, tmp_path / "t.jsonl", ImportOptions(sort=sort), nothing)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000  # held in memory, ten thousand requests take three times as much


def test_progress_tells_the_bytes_read_of_each_file(tmp_path: Path) -> None:
    told: list[tuple[Path, int]] = []
    path = source(tmp_path, 5000)
    import_trace("csv", path, tmp_path / "t.jsonl", ImportOptions(), lambda *moment: told.append(moment))
    assert {file for file, _ in told} == {path}
    positions = [position for _, position in told]
    assert positions == sorted(positions)
    assert 0 < positions[-1] <= path.stat().st_size


def test_steps_and_pictures_are_cut_to_what_is_asked_and_the_cuts_are_counted(tmp_path: Path) -> None:
    text = "timestamp,num_inference_steps,num_images\n0,30,8\n1,10,1\n2,50,2\n"
    options = {"max_steps": 20, "max_images": 2, "time_unit": "s"}
    requests, summary = imported("csv", write(tmp_path / "source.csv", text), **options)
    assert [request.num_inference_steps for request in requests] == [20, 10, 20]
    assert [request.num_images for request in requests] == [2, 1, 2]
    assert summary.provenance.filled_in["num_inference_steps"] == "cut to 20 (2 requests)"
    assert summary.provenance.filled_in["num_images"] == "cut to 2 (1 request)"
