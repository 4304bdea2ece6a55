from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from bench_fakes import fabricate, fabricate_environment, small_options
from PIL import Image
from rich.console import Console

from swiftdiff.bench.lineup import SYSTEMS
from swiftdiff.bench.records import Measurement
from swiftdiff.bench.report import header
from swiftdiff.bench.results import BenchResult, compute_results, doubts_of
from swiftdiff.bench.tables import bench_tables
from swiftdiff.bench.thread_count import best_thread_count, seconds_by_threads, thread_candidates
from swiftdiff.cli.terminal import print_table
from swiftdiff.report.tables import to_csv


def _compute(
    measurements: Sequence[Measurement],
    folder: Path = Path("nowhere"),
    *,
    load_1min: float = 0.0,
    complete: bool = True,
) -> BenchResult:
    environment = fabricate_environment(load_1min)
    return compute_results(small_options(), environment, measurements, folder, complete=complete)


def test_ratios_are_paired_within_the_repeat_and_count_the_restore() -> None:
    result = _compute(
        [
            *fabricate("stock", [3.0, 7.0, 11.0], restore_s=1.0),
            *fabricate("swiftdiff", [0.5, 3.5, 1.5], restore_s=0.5),
        ]
    )
    stock, swift = result.stages[0].cells
    assert swift.speedup is not None
    assert (swift.speedup.low, swift.speedup.median, swift.speedup.high) == (2.0, 4.0, 6.0)
    assert (stock.seconds.median, stock.restore_s, stock.speedup) == (8.0, 1.0, None)
    assert (stock.device_seconds, swift.seconds.median) == (16.0, 2.0)


def test_a_repeat_that_failed_is_in_no_number_and_is_told_with_its_reason() -> None:
    stock = fabricate("stock", [3.0, 4.0])
    failed = fabricate("swiftdiff", [1.0, 1.0])
    failed[1] = failed[1].model_copy(update={"latency_s": None, "restore_s": None, "error": "it broke"})
    result = _compute([*stock, *failed])
    swift = result.stages[0].cells[1]
    assert swift.seconds.count == 1
    assert swift.speedup is not None
    assert (swift.speedup.median, swift.speedup.count) == (3.0, 1)
    assert result.failures == ("shapes, same-hardware, 0C/1L swiftdiff: it broke (1×)",)


def test_stages_add_up_to_the_whole_and_unknown_ones_are_not_lost() -> None:
    stages = {
        "text_encode": 0.1,
        "lora_load": 0.2,
        "lora_patch": 0.1,
        "denoise": 1.0,
        "new": 0.3,
        "other": 0.3,
    }
    (cell,) = _compute(fabricate("stock", [2.0, 2.0], restore_s=0.5, stages=stages)).stages[0].cells
    assert sum(cell.stages_s.values()) == pytest.approx(2.5)
    assert cell.stages_s["LoRA"] == pytest.approx(0.3)
    assert cell.stages_s["other"] == pytest.approx(0.6)
    assert cell.stages_s["restore"] == pytest.approx(0.5)


def test_a_loras_cost_is_load_or_wait_patch_and_restore() -> None:
    stock = fabricate("stock", [5.0] * 3, restore_s=0.3, stages={"lora_load": 1.5, "lora_patch": 0.2})
    swift = fabricate(
        "swiftdiff",
        [2.0] * 3,
        restore_s=0.01,
        stages={"lora_wait": 0.02, "lora_patch": 0.01},
        lora_ready_s=0.09,
    )
    result = _compute([*stock, *swift])
    cell = result.stages[0].cells[1]
    assert cell.lora_speedup is not None
    assert cell.lora_speedup.median == pytest.approx(50.0)
    assert cell.lora_ready_s == 0.09
    (table,) = (table for table in bench_tables(result) if table.name == "shapes-same-hardware-one-lora")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["0C/1L stock"][:4] == pytest.approx((1500, 200, 300, 2000))
    assert rows["0C/1L swiftdiff"][:5] == pytest.approx((20, 10, 10, 40, 50))
    assert "0C/1L has neon." in table.note


def test_settings_without_a_single_lora_are_in_no_lora_table() -> None:
    names = [table.name for table in bench_tables(_compute(fabricate("stock", [1.0], "0C/0L")))]
    assert not any("one-lora" in name for name in names)


def test_the_ablation_is_measured_against_stock_and_against_all_off() -> None:
    result = _compute(
        [
            *fabricate("stock", [4.0] * 3),
            *fabricate("all-off", [3.0] * 3),
            *fabricate("graphs-only", [1.5] * 3),
        ]
    )
    (table,) = (table for table in bench_tables(result) if table.name.endswith("ablation"))
    assert table.rows[0] == ("0C/1L all-off", 3.0, 4 / 3, 4 / 3, 4 / 3, 1.0, None, None)
    assert table.rows[1][5] == 2.0


def test_pictures_are_compared_with_stocks_of_the_same_request(tmp_path: Path) -> None:
    measurements = []
    for system, levels in {"stock": (10, 20), "swiftdiff": (10, 21), "swiftdiff+bal40": (10, 60)}.items():
        for each, level in zip(fabricate(system, [1.0, 1.0]), levels, strict=True):
            name = f"{system}-{each.repeat}.png"
            Image.new("RGB", (4, 4), (level,) * 3).save(tmp_path / name)
            measurements.append(each.model_copy(update={"picture": name}))
    result = _compute(measurements, tmp_path)
    (table,) = (table for table in bench_tables(result) if table.name.endswith("pictures"))
    assert [row[2:] for row in table.rows] == [(1, 0.5, 1, 2), (40, 20.0, 1, 2)]


def test_a_picture_that_is_gone_is_told_and_the_others_are_compared(tmp_path: Path) -> None:
    stock, swift = fabricate("stock", [1.0, 1.0]), fabricate("swiftdiff", [1.0, 1.0])
    for repeat in (0, 1):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{repeat}.png")
    measurements = [each.model_copy(update={"picture": f"{each.repeat}.png"}) for each in (*stock, swift[0])]
    measurements.append(swift[1].model_copy(update={"picture": "gone.png"}))
    (table,) = (t for t in bench_tables(_compute(measurements, tmp_path)) if t.name.endswith("pictures"))
    assert table.rows[0][5] == 1
    assert "gone.png is not there" in table.note


@pytest.mark.parametrize(
    ("other_cpu_s", "load_1min", "told"),
    [(0.0, 0.05, False), (0.5, 0.05, True), (0.0, 2.4, True)],
)
def test_every_table_says_when_the_machine_was_not_idle(
    other_cpu_s: float, load_1min: float, told: bool
) -> None:
    result = _compute(fabricate("stock", [1.0] * 3, other_cpu_s=other_cpu_s), load_1min=load_1min)
    assert all(("MACHINE NOT IDLE" in table.title) == told for table in bench_tables(result))
    assert ("MACHINE NOT IDLE" in header(result)[0]) == told


def test_what_is_missing_is_told_in_every_table() -> None:
    result = _compute(fabricate("stock", [1.0]), complete=False)
    assert [doubt.sentence for doubt in doubts_of(result)] == ["INCOMPLETE: 1 measurements so far."]
    assert all("INCOMPLETE" in table.title for table in bench_tables(result))
    assert result.to_json()["complete"] is False


def test_tables_say_what_their_ends_are() -> None:
    few, many = (_compute(fabricate("stock", [1.0] * count)) for count in (5, 12))
    assert "lowest and highest of the repeats" in bench_tables(few)[0].note
    assert "bootstrap 95 % interval" in bench_tables(many)[0].note


def test_all_tables_fit_80_columns_and_csv_keeps_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    measurements = []
    for setting in ("3C/2L", "0C/1L"):
        for system in SYSTEMS:
            stages = {"lora_load": 11.234, "lora_patch": 0.123, "denoise": 109.876, "vae_decode": 1.234}
            stages |= {"text_encode": 0.123, "controlnet_load": 0.345, "other": 0.521}
            measurements += fabricate(
                system, [123.456, 143.456, 100.0], setting, model="sdxl-thin", restore_s=1.234, stages=stages
            )
    tables = bench_tables(_compute(measurements))
    assert len(tables) == 5
    for table in tables:
        print_table(Console(width=80), table)
        rows = list(csv.reader(io.StringIO(to_csv(table))))
        assert len({*rows[0]}) == len(rows[0])
        assert len(rows) == len(table.rows) + 1
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    for system in SYSTEMS:  # no row is folded into two lines
        assert any(line.startswith(f"3C/2L {system} ") and "124.69" in line for line in lines)


def test_thread_counts_to_try_are_powers_of_two_and_all_cores() -> None:
    assert [thread_candidates(cores) for cores in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


def test_stocks_threads_are_those_with_the_least_time_over_all_settings_tried() -> None:
    tried = {
        "stock@1": {"0C/0L": [1.0, 9.0, 1.2], "3C/0L": [4.0]},
        "stock@2": {"0C/0L": [1.5], "3C/0L": [3.0]},
        "stock@4": {"0C/0L": [0.1]},  # failed in the other setting
    }
    measurements = [
        each.model_copy(update={"purpose": "threads"})
        for system, settings in tried.items()
        for setting, seconds in settings.items()
        for each in fabricate(system, seconds, setting)
    ]
    seconds = seconds_by_threads("shapes", measurements)
    assert seconds == pytest.approx({1: 5.2, 2: 4.5})
    assert best_thread_count(seconds, default=8) == 2
    assert best_thread_count({}, default=8) == 8
