from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeSystem, fake_config, make_request, write_requests
from PIL import Image

from swiftdiff.config import AdapterStoreConfig, StoreEmulationConfig
from swiftdiff.engine.clock import FakeClock
from swiftdiff.engine.options import ReplayOptions
from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.engine.session import start_run
from swiftdiff.errors import AdapterError
from swiftdiff.report.run_report import write_report
from swiftdiff.report.tables import Column, Table, to_markdown
from swiftdiff.request import ImageRequest


def _fail_bad(request: ImageRequest) -> None:
    if request.request_id == "bad":
        raise AdapterError("unknown LoRA | pipes\nand lines")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    requests = [make_request(name, 100.0 * i, slo_ms=1500.0) for i, name in enumerate(("a", "b", "bad", "c"))]
    clock = FakeClock()
    emulate = StoreEmulationConfig(latency_ms=40, bandwidth_mb_s=200, jitter=0.5)
    config = fake_config().model_copy(update={"adapters": AdapterStoreConfig(emulate=emulate)})
    return start_run(
        write_requests(tmp_path / "trace.jsonl", requests),
        config,
        ReplayOptions(),
        tmp_path / "run",
        argv=[],
        clock=clock,
        build=lambda config: FakeSystem(clock, before=_fail_bad),
    ).folder


def test_summary_json_has_the_keys_that_serving_benchmarks_share(folder: RunFolder) -> None:
    write_report(folder)
    summary = json.loads(folder.summary_path.read_text())
    keys = {
        "duration", "completed", "failed", "request_throughput", "request_goodput", "mean_e2el_ms",
        "median_e2el_ms", "std_e2el_ms", "p90_e2el_ms", "p95_e2el_ms", "p99_e2el_ms", "slo_attainment_rate",
        "images_per_s", "device_seconds_per_image", "peak_host_memory_bytes", "stages_ms", "trace_sha256",
    }  # fmt: skip
    assert keys <= set(summary)
    assert summary["complete"] is True
    assert (summary["completed"], summary["failed"], summary["remaining"]) == (3, 1, 0)


def test_tables_of_an_emulated_store_say_so(folder: RunFolder) -> None:
    write_report(folder)
    report = (folder.path / "report.md").read_text()
    said = "Adapter store emulated: 40 ms latency, 200 MB/s, jitter 0.5 (lognormal, seed 0)."
    assert report.count(said) == 2


def test_csv_tables_hold_the_raw_numbers(folder: RunFolder) -> None:
    result = write_report(folder)
    with (folder.path / "tables/latency.csv").open() as file:
        rows = {row["ms"]: row for row in csv.DictReader(file)}
    assert result.summary.latency is not None
    assert float(rows["latency"]["mean"]) == result.summary.latency.mean
    assert "denoise" in rows


def test_the_plot_is_a_picture_with_ink(folder: RunFolder) -> None:
    write_report(folder)
    with Image.open(folder.path / "plots/latency.png") as plot:
        pixels = np.asarray(plot.convert("L"))
    assert pixels.shape[0] > 500
    assert pixels.std() > 10


def test_a_run_without_any_record_is_reported_as_incomplete(folder: RunFolder) -> None:
    folder.records_path.write_text("")
    result = write_report(folder)
    assert not result.complete
    assert json.loads(folder.summary_path.read_text())["remaining"] == 4
    assert "INCOMPLETE" in (folder.path / "report.md").read_text()


def test_a_report_of_failures_only_has_a_plot_that_says_so(folder: RunFolder) -> None:
    lines = folder.records_path.read_text().splitlines(keepends=True)
    folder.records_path.write_text("".join(line for line in lines if '"failed"' in line))
    assert write_report(folder).summary.latency is None
    assert (folder.path / "plots/latency.png").exists()


def test_markdown_cells_cannot_break_their_table(folder: RunFolder) -> None:
    write_report(folder)
    line = next(line for line in (folder.path / "report.md").read_text().splitlines() if "| bad |" in line)
    assert line == "| bad | AdapterError | unknown LoRA \\| pipes and lines |"


def test_numbers_are_shown_with_about_three_digits() -> None:
    table = Table(
        "t",
        "T",
        (Column("x", "auto"),),
        ((1234567,), (1234.5,), (12.34,), (1.234,), (0.01234,), (0.0,), (None,)),
    )
    assert [row[0] for row in table.shown()] == ["1,234,567", "1,234", "12.3", "1.23", "0.012", "0", "–"]
    assert "1,234,567" in to_markdown(table)
