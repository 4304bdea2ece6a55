"""Tests of what measurements on GPUs come to: tables, doubts, and what is published."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from gpu_bench_fakes import fabricate_folder, on_gpus

from swiftdiff.bench.gpu_options import GpuBenchFolder
from swiftdiff.bench.gpu_report import publish, why_not_published, write_gpu_report
from swiftdiff.bench.gpu_results import GpuBenchResult, read_gpu_result
from swiftdiff.bench.gpu_session import GpuBenchEnd
from swiftdiff.bench.gpu_tables import gpu_tables
from swiftdiff.bench.records import Measurement
from swiftdiff.errors import StorageError

LOG = "2026/11/23 07:00:00.500, 0, 1980, 2619, 50, 650.20, 100\n"


def some() -> list[Measurement]:
    made = on_gpus("stock", [8.0, 10.0], "3C/2L")
    made += on_gpus("swiftdiff", [4.0, 4.0], "3C/2L", graphs_captured=0, capture_s=7.5)
    made += on_gpus("swiftdiff-2gpus", [2.0, 2.0], "3C/2L", device_seconds=4.0)
    made += on_gpus("all-bold", [1.0], "3C/2L", exactness="approximate")
    made += on_gpus("all-off", [6.0], "3C/2L") + on_gpus("graphs-only", [3.0], "3C/2L")
    for system, build_s in (("stock", 5.0), ("swiftdiff", 6.0)):
        (start,) = on_gpus(system, [0.0], "0C/0L")
        made.append(
            start.model_copy(
                update={"purpose": "start", "setting": "", "stages": {"build": build_s, "warm_up": 9.0}}
            )
        )
        (warm,) = on_gpus(system, [1.5], "3C/2L")
        made.append(warm.model_copy(update={"purpose": "warmup"}))
    return made


def read(folder: GpuBenchFolder, outcome: str = "complete", cut: str = "") -> GpuBenchResult:
    return read_gpu_result(folder, outcome=outcome, cut=cut)


def table(result: GpuBenchResult, name: str) -> dict[str, list[str]]:
    (found,) = (each for each in gpu_tables(result) if each.name == f"sdxl-gpu-{name}")
    return {row[0]: row[1:] for row in found.shown()}


def test_ratios_are_paired_and_gpu_seconds_count_every_gpu(tmp_path: Path) -> None:
    speed = table(read(fabricate_folder(tmp_path / "b", some())), "speed")
    assert speed["3C/2L stock"] == ["=", "9.00", "–", "–", "–", "0.000", "18.00", "2"]
    assert speed["3C/2L swiftdiff"][:5] == ["=", "4.00", "2.25", "2.00", "2.50"]
    assert speed["3C/2L swiftdiff-2gpus"][6] == "4.00"
    assert speed["3C/2L all-bold"][0] == "≈"
    assert not any("graphs-only" in name for name in speed)
    ablation = table(read(fabricate_folder(tmp_path / "c", some())), "ablation")
    assert ablation["3C/2L all-off"][4] == "1.00"
    assert ablation["3C/2L graphs-only"][4] == "2.00"


def test_the_share_of_the_ceiling_is_counted_work_over_seconds_and_gpus(tmp_path: Path) -> None:
    result = read(fabricate_folder(tmp_path / "b", some()))
    tflop = 50 * (13.5 + 3 * 6.0) + 10.5
    cells = {cell.system: cell for cell in result.stage.cells}
    assert result.ceiling_tflops == 800.0
    assert result.tflop_of(cells["swiftdiff"]) == tflop
    assert result.share_of(cells["swiftdiff"]) == pytest.approx(tflop / 4.0 / 800.0)
    assert result.share_of(cells["swiftdiff-2gpus"]) == pytest.approx(tflop / 2.0 / 1600.0)
    assert result.share_of(cells["all-bold"]) is None  # it computes less
    assert "3C/2L all-bold" not in table(result, "work")


def test_starts_first_requests_and_memory_are_told_by_system(tmp_path: Path) -> None:
    start = table(read(fabricate_folder(tmp_path / "b", some())), "start")
    assert start["stock"] == ["5.0", "9.0", "1.5", "0.0", "–", "0.0", "20.0"]
    assert start["all-off"][:3] == ["–", "–", "–"]
    assert start["swiftdiff"][3:5] == ["7.5", "0"]


def test_a_report_says_on_what_it_was_measured_and_what_was_left_out(tmp_path: Path) -> None:
    folder = fabricate_folder(tmp_path / "b", some())
    (folder.path / "clocks-1.csv").write_text(LOG)
    cut = "stock, swiftdiff lack 3 of 5 repeats"
    result = write_gpu_report(GpuBenchEnd(folder, "cut", cut))
    report = (folder.path / "report.md").read_text()
    for text in (
        "NVIDIA H100 80GB HBM3, driver 580.1",
        "800 TFLOP/s in float16",
        "CUDA 13.0, cuDNN 91002",
        "SM clock 1980 MHz",
        "random weights",
        f"Left out, for it did not fit into the minutes: {cut}",
        "- **swiftdiff-2gpus**: the same on 2 GPUs",
        "a guided UNet step is 13.5",
    ):
        assert text in report
    summary = json.loads((folder.path / "summary.json").read_text())
    assert (summary["outcome"], summary["left_out"]) == ("cut", cut)
    assert summary["results"][0]["counted_tflop"] == result.tflop_of(result.stage.cells[0])
    with (folder.path / "tables" / "sdxl-gpu-speed.csv").open() as file:
        assert len(list(csv.reader(file))) == 1 + 4


@pytest.mark.parametrize(
    ("changes", "outcome", "flag"),
    [
        ({"dry_run": True}, "complete", "DRY RUN"),
        ({"gpu": {"memory.used": "9000"}}, "complete", "GPU NOT IDLE"),
        ({"ceilings": (800.0, 700.0)}, "complete", "GPU SLOWED DOWN"),
        ({"dry_run": True, "ceilings": (800.0, 700.0)}, "complete", "DRY RUN – CPU SLOWED DOWN"),
        ({}, "interrupted", "INCOMPLETE"),
    ],
)
def test_what_makes_numbers_doubtful_is_in_every_tables_title(
    tmp_path: Path, changes: dict[str, object], outcome: str, flag: str
) -> None:
    sound = read(fabricate_folder(tmp_path / "sound", some()))
    assert not any("–" in table.title for table in gpu_tables(sound))
    result = read(fabricate_folder(tmp_path / "doubtful", some(), **changes), outcome)  # type: ignore[arg-type]
    assert all(table.title.endswith(flag) for table in gpu_tables(result))


def test_sessions_on_different_gpus_are_told(tmp_path: Path) -> None:
    folder = fabricate_folder(tmp_path / "b", some())
    environment = folder.read_json("environment.json")
    (session,) = environment["sessions"]
    other = session | {"gpus": [session["gpus"][0] | {"name": "NVIDIA H200"}]}
    folder.write_json("environment.json", environment | {"sessions": [session, other]})
    assert all(table.title.endswith("DIFFERENT GPUS") for table in gpu_tables(read(folder)))
    write_gpu_report(GpuBenchEnd(folder, "complete"))
    assert (
        "2 sessions of at most 8 minutes; lines may be compared across them"
        in (folder.path / "report.md").read_text()
    )


def test_failures_are_told_and_are_in_no_number(tmp_path: Path) -> None:
    failed = on_gpus("swiftdiff", [9.0], "0C/0L", error="out of memory", latency_s=None)
    folder = fabricate_folder(tmp_path / "b", some() + failed)
    result = write_gpu_report(GpuBenchEnd(folder, "complete"))
    assert result.failures == ("0C/0L swiftdiff: out of memory (1×)",)
    assert "out of memory" in (folder.path / "report.md").read_text()
    assert "0C/0L swiftdiff" not in table(result, "speed")


def test_what_is_published_lies_in_a_folder_named_after_the_gpu_without_pictures(tmp_path: Path) -> None:
    folder = fabricate_folder(tmp_path / "b", some())
    (folder.path / "images").mkdir()
    result = write_gpu_report(GpuBenchEnd(folder, "complete"))
    other = fabricate_folder(tmp_path / "c", on_gpus("stock", [7.0], "0C/0L") + some())
    first = publish(folder, result, tmp_path / "published")
    second = publish(other, write_gpu_report(GpuBenchEnd(other, "complete")), tmp_path / "published")
    assert (first.name, second.name) == ("2x-h100-80gb-hbm3-bench", "2x-h100-80gb-hbm3-bench-2")
    assert {path.name for path in first.iterdir()} == {
        "bench-gpu.json",
        "environment.json",
        "raw.jsonl",
        "report.md",
        "summary.json",
        "tables",
        "work.json",
    }
    assert {path.name for path in (tmp_path / "published").iterdir()} == {first.name, second.name}


def test_a_benchmark_that_went_on_replaces_what_was_published_of_it(tmp_path: Path) -> None:
    folder, root = fabricate_folder(tmp_path / "b", some()), tmp_path / "published"
    first = publish(folder, write_gpu_report(GpuBenchEnd(folder, "cut", "more")), root)
    for more in on_gpus("all-mild", [1.0], "3C/2L", exactness="approximate"):
        folder.append(more)
    again = publish(folder, write_gpu_report(GpuBenchEnd(folder, "complete")), root)
    assert (first, [path.name for path in root.iterdir()]) == (again, [first.name])
    assert "all-mild" in (first / "report.md").read_text()


def test_where_it_cannot_be_published_it_is_said_how_to_do_so_later(tmp_path: Path) -> None:
    folder, root = fabricate_folder(tmp_path / "b", some()), tmp_path / "published"
    root.write_text("a file")
    with pytest.raises(StorageError, match=r"--resume \S+/b --publish DIR"):
        publish(folder, write_gpu_report(GpuBenchEnd(folder, "complete")), root)


def test_adapters_that_were_borrowed_are_told(tmp_path: Path) -> None:
    folder = fabricate_folder(tmp_path / "b", some())
    environment = folder.read_json("environment.json")
    folder.write_json("environment.json", environment | {"adapters_of": "sdxl"})
    write_gpu_report(GpuBenchEnd(folder, "complete"))
    assert "LoRAs are the random ones of sdxl" in (folder.path / "report.md").read_text()


def test_neither_a_dry_run_nor_half_a_benchmark_is_published(tmp_path: Path) -> None:
    folder = fabricate_folder(tmp_path / "dry", some(), dry_run=True)
    assert why_not_published(read(folder)) == "it was a dry run"
    folder = fabricate_folder(tmp_path / "half", some())
    assert "--resume goes on" in str(why_not_published(read(folder, "interrupted")))
    assert why_not_published(read(folder, "cut")) is None
