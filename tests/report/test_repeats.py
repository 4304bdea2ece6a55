"""Repeats of a run count as one system, paired by request and repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import fake_config
from run_folders import failed, make_run, served

from swiftdiff.config import ServingConfig
from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.engine.run_info import Session
from swiftdiff.errors import ConfigError
from swiftdiff.report.comparison import compare_runs
from swiftdiff.report.comparison_report import to_json
from swiftdiff.report.comparison_tables import comparison_tables
from swiftdiff.report.tables import Table


def system(root: Path, name: str, *repeats: list[float], engine: Any = "swiftdiff") -> Path:
    config = ServingConfig(name=name, engine=engine, model="none")
    for number, latencies in enumerate(repeats, start=1):
        requests = [served(f"r{i}", latency, level=100 + number) for i, latency in enumerate(latencies)]
        run = make_run(root / name / str(number), requests, config=config)
        (run / "summary.json").write_text("{}")
    return root / name


def cell(tables: list[Table], table: str, row: str, label: str) -> Any:
    (found,) = [each for each in tables if each.name == table]
    index = [column.name for column in found.columns].index(label)
    (cells,) = [cells for cells in found.rows if str(cells[0]).strip() == row]
    return cells[index]


def test_repeats_are_one_column_with_all_their_requests(tmp_path: Path) -> None:
    stock = system(tmp_path, "stock", [2.0, 4.0], [3.0, 5.0], engine="diffusers")
    fast = system(tmp_path, "fast", [1.0, 2.0], [1.0, 3.0])
    comparison = compare_runs([stock, fast])
    tables = comparison_tables(comparison)
    assert cell(tables, "comparison", "repeats", "fast") == 2
    assert cell(tables, "comparison", "requests served", "fast") == 4
    assert cell(tables, "comparison", "latency, mean ms", "fast") == pytest.approx(1750)
    assert cell(tables, "speedup", "requests paired", "fast") == 4
    assert cell(tables, "speedup", "latency, mean ×", "fast") == pytest.approx(14 / 7)
    alone = compare_runs([stock / "1", fast / "1"]).runs[1].result.summary
    assert cell(tables, "cost", "requests/s", "fast") == pytest.approx(
        (alone.request_throughput + 2 / 3.0) / 2
    )
    run = to_json(comparison)["runs"][1]
    assert run["repeats"] == {1: str(fast / "1"), 2: str(fast / "2")}
    assert (run["complete"], run["num_requests"]) == (True, 4)


def test_the_interval_holds_the_speed_up_and_widens_with_the_machines_moods(tmp_path: Path) -> None:
    requests = [1.0, 1.5, 2.0, 2.5, 3.0]
    stock = system(tmp_path, "stock", *[[2 * r for r in requests]] * 4, engine="diffusers")
    calm = system(tmp_path, "calm", *[requests] * 4)
    moody = system(tmp_path, "moody", *[[r * mood for r in requests] for mood in (0.7, 1.3, 0.9, 1.1)])
    runs = compare_runs([stock, calm, moody]).runs
    speedups = {run.label: run.latency_speedup for run in runs}
    assert (speedups["calm"].low, speedups["calm"].high) == pytest.approx((2, 2))
    low, mean, high = (getattr(speedups["moody"], name) for name in ("low", "mean", "high"))
    assert mean == pytest.approx(2.0)
    assert low < 1.9
    assert high > 2.1
    assert compare_runs([stock, calm, moody]).runs[2].latency_speedup == speedups["moody"], "it is seeded"


def test_only_repeats_that_both_have_are_paired(tmp_path: Path) -> None:
    stock = system(tmp_path, "stock", [2.0], [2.0], [9.0], engine="diffusers")
    fast = system(tmp_path, "fast", [1.0], [1.0])
    comparison = compare_runs([stock, fast])
    assert comparison.runs[1].latency_speedup.mean == pytest.approx(2.0)
    assert any("both served 2 requests" in caveat for caveat in comparison.caveats)


def test_a_repeat_that_did_not_end_does_not_count(tmp_path: Path) -> None:
    stock = system(tmp_path, "stock", [2.0], [2.0], engine="diffusers")
    fast = system(tmp_path, "fast", [1.0], [5.0])
    (fast / "2" / "summary.json").unlink()
    assert compare_runs([stock, fast]).runs[1].result.summary.completed == 1
    (fast / "1" / "summary.json").unlink()
    with pytest.raises(ConfigError, match="fast is not a run folder"):
        compare_runs([stock, fast])


def test_pictures_of_one_repeat_are_compared_with_those_of_the_same(tmp_path: Path) -> None:
    stock = system(tmp_path, "stock", [2.0, 2.0], [2.0, 2.0], engine="diffusers")
    fast = system(tmp_path, "fast", [1.0, 1.0], [1.0, 1.0])
    pictures = compare_runs([stock, fast]).runs[1].pictures
    assert pictures is not None
    assert (len(pictures.pairs), pictures.max_abs) == (2, 0)


def test_requests_are_told_apart_by_their_adapters(tmp_path: Path) -> None:
    def run(name: str, plain_s: float, lora_s: float) -> Path:
        requests = [served("a", plain_s), served("b", lora_s, loras=("neon",), controlnets=("edges",))]
        return make_run(tmp_path / name, requests, config=fake_config(name))

    tables = comparison_tables(compare_runs([run("stock", 2.0, 6.0), run("fast", 1.0, 2.0)]))
    settings = {table.name: table for table in tables}["settings"]
    assert [row[0] for row in settings.rows] == [
        "0C/0L, mean ms",
        "  × baseline",
        "1C/1L, mean ms",
        "  × baseline",
    ]
    assert [row[2] for row in settings.rows] == pytest.approx([1000, 2.0, 2000, 3.0])


def test_requests_that_failed_are_counted_by_reason(tmp_path: Path) -> None:
    stock = make_run(tmp_path / "stock", [served(n, 1.0) for n in "abc"])
    fast = make_run(tmp_path / "fast", [served("a", 1.0), failed("b"), failed("c")])
    tables = {table.name: table for table in comparison_tables(compare_runs([stock, fast]))}
    assert tables["failures"].rows == (("fast", 2, "AdapterError", "no"),)


def test_memory_is_shown_device_by_device(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, [served("a", 1.0)]) for name in ("stock", "fast")]
    peaks = {"cuda:0": 3 << 20, "cuda:1": 5 << 20}
    session = Session(
        started_at="2026-01-01T00:00:00+00:00", outcome="complete", setup_s=1.0, wall_s=1.0,
        peak_host_bytes=1, peak_device_bytes=3 << 20, peak_bytes_by_device=peaks,
    )  # fmt: skip
    RunFolder(runs[1]).append_session(session)
    tables = comparison_tables(compare_runs(runs))
    assert cell(tables, "cost", "peak on cuda:0, MiB", "fast") == 3
    assert cell(tables, "cost", "peak on cuda:1, MiB", "fast") == 5
    assert cell(tables, "cost", "peak on cuda:1, MiB", "stock") is None
