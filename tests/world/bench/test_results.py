"""What a world's measurements come to: ratios within a repeat, limits, doubts, and a folder that lasts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swiftdiff.errors import StorageError
from swiftdiff.world.bench.folder import ENVIRONMENT, BenchRow, WorldBenchFolder
from swiftdiff.world.bench.options import Part, WorldBenchOptions
from swiftdiff.world.bench.parts import plan_rounds
from swiftdiff.world.bench.report import SUMMARY, bench_tables, write_bench_report
from swiftdiff.world.bench.results import Finding, Spread, WorldBenchResult, compute_result, doubts_of

ENVIRONMENT_VALUES: dict[str, Any] = {
    "sessions": [{"started_at": "2026-11-23T06:00:00.000+00:00", "load_1min": 0.1}],
    "cpu": "a CPU", "usable_cores": 2, "cores": 2, "memory_bytes": 2**33, "platform": "Linux",
    "swiftdiff": "0", "git_commit": None, "python": "3.11", "packages": {"torch": "2", "diffusers": "0"},
    "command": ["swiftdiff", "world", "bench"],
    "model": {"parameters": 1_750_000, "tokens_per_block": 48, "steps": 4, "weights_sha256": "0"},
}  # fmt: skip


def row(part: Part, case: str, repeat: int = 0, **numbers: float) -> BenchRow:
    return BenchRow(
        part=part,
        case=case,
        repeat=repeat,
        seconds=1.0,
        numbers=numbers,
        series={},
        started_at="2026-11-23T06:00:00.000+00:00",
        load_1min=0.1,
        other_cpu_s=0.01,
    )


def result_of(*rows: BenchRow, options: WorldBenchOptions | None = None, **changes: Any) -> WorldBenchResult:
    environment = ENVIRONMENT_VALUES | changes
    return compute_result(options or WorldBenchOptions(), environment, rows, complete=True)


def finding(result: WorldBenchResult, name: str) -> Finding:
    return next(each for each in result.findings if each.name.startswith(name))


def test_a_speed_up_is_the_median_of_ratios_within_a_repeat() -> None:
    times = ((1.0, 3.5), (2.0, 6.2), (1.0, 2.0))  # the second repeat met a slow machine
    rows = [
        row("speed", case, repeat, clip_s=seconds)
        for repeat, (cache, recompute) in enumerate(times)
        for case, seconds in (("cache 7", cache), ("recompute 7", recompute))
    ]
    found = finding(result_of(*rows), "speed-up over recompute, 7")
    assert found.spread == Spread(pytest.approx(3.1), 2.0, 3.5, 3)
    assert found.is_met
    assert finding(result_of(*rows), "speed-up over recompute, 14").is_met is None


def test_a_speed_up_at_equal_kernels_is_stated_beside_and_asks_for_nothing() -> None:
    rows = [
        row("speed", f"{way} 14", clip_s=seconds)
        for way, seconds in (("cache", 1.0), ("recompute", 7.0), ("recompute-fast", 5.0))
    ]
    result = result_of(*rows)
    found = finding(result, "speed-up at equal kernels, 14")
    assert (found.spread, found.is_met) == (Spread(5.0, 5.0, 5.0, 1), None)
    assert finding(result, "speed-up over recompute, 14").spread == Spread(7.0, 7.0, 7.0, 1)


def test_a_repeat_without_its_partner_is_no_pair() -> None:
    rows = [
        row("speed", "cache 7", 0, clip_s=1.0),
        row("speed", "recompute 7", 0, clip_s=4.0),
        row("speed", "cache 7", 1, clip_s=9.0),
    ]
    assert finding(result_of(*rows), "speed-up").spread == Spread(4.0, 4.0, 4.0, 1)


@pytest.mark.parametrize(
    ("rows", "name", "is_met"),
    [
        ([row("parity", "cache", max_error=9e-6)], "cache vs", True),
        ([row("parity", "cache", max_error=2e-5)], "cache vs", False),
        ([row("parity", "float64", max_error=2e-5)], "… in float64", False),
        ([row("parity", "float64", max_error=2e-14)], "… in float64", True),
        ([row("window", "window", bytes_before=8, bytes_after=8)], "window: KV bytes", True),
        ([row("window", "window", bytes_before=8, bytes_after=9)], "window: KV bytes", False),
        ([row("window", "window", last_block_s=1.2, first_full_block_s=1.0)], "window: time", False),
        ([row("window", "full", last_block_s=3.0, first_full_block_s=1.0)], "full: time", None),
        ([row("int8", "int8", bytes=31), row("int8", "native", bytes=100)], "int8: KV bytes", False),
        ([row("int8", "int8", bytes=29), row("int8", "native", bytes=100)], "int8: KV bytes", True),
        # of 14 blocks the first must come within a fourteenth of the clip's time
        ([row("first-pixels", "stream", first_pixels_s=0.07, clip_s=1.0)], "first pixels", True),
        ([row("first-pixels", "stream", first_pixels_s=0.08, clip_s=1.0)], "first pixels", False),
        ([row("overhead", "profiled", counted_overhead_share=0.02)], "profiler: share", False),
    ],
)
def test_each_limit_is_held_or_not(rows: list[BenchRow], name: str, is_met: bool | None) -> None:
    result = result_of(*rows)
    assert finding(result, name).is_met is is_met
    assert [each.name for each in result.unmet] == ([finding(result, name).name] if is_met is False else [])


def test_what_makes_numbers_doubtful_is_said() -> None:
    assert doubts_of(result_of(row("parity", "cache", max_error=0))) == []
    busy = [{"started_at": "2026-11-23T06:00:00.000+00:00", "load_1min": 1.5}]
    assert "MACHINE NOT IDLE: load average 1.50" in doubts_of(result_of(sessions=busy))[0]
    options = WorldBenchOptions(model="bounce-random")
    assert "RANDOM WEIGHTS" in doubts_of(result_of(options=options))[0]
    partly = compute_result(WorldBenchOptions(), ENVIRONMENT_VALUES, [], complete=False)
    assert "INCOMPLETE: 0 measurements" in doubts_of(partly)[0]


def test_drift_is_computed_from_the_values_on_disk() -> None:
    rows = [
        row("drift", way, seed).model_copy(update={"series": {"clarity (proxy)": (1.0, 1.0 + change)}})
        for way, change in (("ground truth", 0.1), ("window", 0.5))
        for seed in range(5)
    ]
    truth, window = result_of(*rows).drifts
    assert (truth.way, window.way) == ("ground truth", "window")
    assert truth.linear is not None
    assert window.linear is not None
    assert (truth.linear.value, window.linear.value) == pytest.approx((0.1, 0.5))
    [table] = [table for table in bench_tables(result_of(*rows)) if table.name == "drift"]
    assert [each[0] for each in table.rows] == ["clarity (proxy)", "  ground truth", "  window"]


def test_rounds_alternate_their_order_and_the_truth_is_measured_where_it_is_known() -> None:
    options = WorldBenchOptions(repeats=2, clip_blocks=(3,), drift_seeds=2)
    rounds = plan_rounds(options, has_truth=True)
    speed = [each.cases for each in rounds if each.part == "speed"]
    ways = ("cache 3", "recompute 3", "recompute-fast 3")
    assert speed == [ways, ways[::-1]]
    assert [each.cases[0] for each in rounds if each.part == "drift"] == ["ground truth"] * 2
    assert "ground truth" not in plan_rounds(options, has_truth=False)[-2].cases
    keys = [(each.part, case, each.repeat) for each in rounds for case in each.cases]
    assert len(keys) == len(set(keys))


def test_a_report_is_written_from_what_is_on_disk(tmp_path: Path) -> None:
    folder = WorldBenchFolder.create(tmp_path / "bench", WorldBenchOptions())
    folder.write_json(ENVIRONMENT, ENVIRONMENT_VALUES)
    folder.append(row("parity", "cache", max_error=1.0))
    folder.append(row("parity", "cache", max_error=7e-7))  # measured again: the last one counts
    result = write_bench_report(folder, complete=True)
    assert finding(result, "cache vs").spread == Spread(7e-7, 7e-7, 7e-7, 1)
    report = (tmp_path / "bench" / "report.md").read_text(encoding="utf-8")
    assert "| cache vs recompute, largest error | 7.0e-07 | 7.0e-07 | 7.0e-07 | ≤ 1e-05 | yes | 1 |" in report
    summary = json.loads((tmp_path / "bench" / SUMMARY).read_text(encoding="utf-8"))
    assert summary["complete"] is True
    assert summary["findings"][0]["is_met"] is True
    assert (tmp_path / "bench" / "tables" / "accept.csv").is_file()


def test_a_torn_last_line_is_cut_off_and_a_damaged_one_before_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bench"
    folder = WorldBenchFolder.create(path, WorldBenchOptions(seed=3))
    folder.append(row("parity", "cache", max_error=0.5))
    with folder.raw_path.open("a") as file:
        file.write('{"part": "par')
    again = WorldBenchFolder.open(path)
    assert again.read_options().seed == 3
    assert [each.numbers for each in again.read_rows()] == [{"max_error": 0.5}]
    again.append(row("speed", "cache 7", clip_s=1.0))
    assert len(again.read_rows()) == 2
    folder.raw_path.write_text("broken\n" + folder.raw_path.read_text())
    with pytest.raises(StorageError, match="the record is damaged"):
        WorldBenchFolder.open(path)


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    WorldBenchFolder.create(tmp_path / "bench", WorldBenchOptions())
    with pytest.raises(StorageError, match="--resume"):
        WorldBenchFolder.create(tmp_path / "bench", WorldBenchOptions())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(StorageError, match="name another"):
        WorldBenchFolder.create(tmp_path / "other", WorldBenchOptions())
    with pytest.raises(StorageError, match="no benchmark's folder"):
        WorldBenchFolder.open(tmp_path / "other")
    (tmp_path / "bench" / "bench.json").write_text("{}x")
    with pytest.raises(StorageError, match="is damaged"):
        WorldBenchFolder.open(tmp_path / "bench").read_options()
    with pytest.raises(StorageError, match="cannot read"):
        WorldBenchFolder.open(tmp_path / "bench").read_json(ENVIRONMENT)
