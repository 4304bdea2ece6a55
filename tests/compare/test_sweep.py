from __future__ import annotations

from pathlib import Path

import pytest
from compare_fakes import SLOW_S, FakeBuild
from fakes import make_request, write_requests

from swiftdiff.compare.plan import ComparePlan, SweepOptions, make_plan
from swiftdiff.compare.report import Report, report_measured, write_report
from swiftdiff.compare.session import CompareEnd, resume_comparison, start_comparison
from swiftdiff.compare.sweep import ALONE, check_sweep, find_rates, read_sweep
from swiftdiff.config import ServingConfig
from swiftdiff.engine.options import ClosedLoad, ReplayOptions
from swiftdiff.errors import ConfigError
from swiftdiff.report.tables import Table


def make(tmp_path: Path, options: ReplayOptions, max_probes: int = 2, **fields: object) -> ComparePlan:
    trace = write_requests(
        tmp_path / "trace.jsonl", [make_request(f"r{i}", float(i), **fields) for i in range(3)]
    )
    systems = [
        ServingConfig(name="stock", engine="diffusers", model="none"),
        ServingConfig(name="slow", engine="swiftdiff", model="none"),
    ]
    sweep = SweepOptions(max_probes=max_probes)
    return make_plan(trace, systems, options, baseline="stock", sweep=sweep)


def start(plan: ComparePlan, out: Path, **build: object) -> CompareEnd:
    return start_comparison(plan, out, find_rates, argv=["swiftdiff"], build=FakeBuild(**build))  # type: ignore[arg-type]


def table(report: Report, name: str) -> Table:
    (found,) = [each for each in report.tables if each.name == name]
    return found


def test_each_probe_is_a_run_and_a_system_too_slow_alone_holds_no_rate(tmp_path: Path) -> None:
    # a limit just below the slow system's time leaves the other 2 s for what else the machine does
    plan, out = make(tmp_path, ReplayOptions(slo_ms=SLOW_S * 1000 - 50)), tmp_path / "out"
    ended = start(plan, out, slow=("slow",))
    stock, slow = read_sweep(ended.folder, plan)
    assert (slow.highest_held, slow.lowest_failed, slow.finished) == (None, None, True)
    assert [probe.rate for probe in slow.probes] == [None]
    assert stock.finished
    rates = [probe.rate for probe in stock.probes if probe.rate is not None]
    assert len(rates) == 2
    for name in (ALONE, *(f"{rate:g}" for rate in rates)):
        assert (out / "sweep/stock" / name / "summary.json").is_file()
    report = report_measured(ended.folder)
    names = [row[0] for row in table(report, "rates").rows]
    assert names == ["stock", "slow"]
    assert len(table(report, "throughput-against-load").rows) == 1 + 2 + 1
    write_report(report, out)
    assert "Throughput against load" in (out / "comparison.md").read_text()
    assert (out / "tables/throughput-against-load.csv").is_file()
    probes = report.values["sweep"]["systems"][0]["probes"]
    assert probes[1]["slo_attainment_rate"] is not None


def test_a_sweep_goes_on_where_it_was_and_measures_nothing_twice(tmp_path: Path) -> None:
    plan, out, log = make(tmp_path, ReplayOptions(), slo_ms=60000.0), tmp_path / "out", tmp_path / "log"
    first = start(plan, out, cannot_start=("slow",))
    assert report_measured(first.folder).num_failed == 1
    stock = read_sweep(first.folder, plan)[0]
    ended = resume_comparison(out, lambda plan: find_rates, argv=[], build=FakeBuild(log=log))
    assert {line.split()[0] for line in log.read_text().splitlines()} == {"slow"}
    again, slow = read_sweep(ended.folder, plan)
    assert again == stock
    assert slow.finished
    assert slow.highest_held is not None


def test_a_sweep_needs_an_slo_and_no_other_load(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no request of .* has an slo_ms; give one for all with --goodput"):
        check_sweep(make(tmp_path, ReplayOptions()))
    check_sweep(make(tmp_path, ReplayOptions(slo_ms=5.0)))
    check_sweep(make(tmp_path, ReplayOptions(), slo_ms=5.0))
    with pytest.raises(ConfigError, match="chooses when requests arrive"):
        check_sweep(make(tmp_path, ReplayOptions(slo_ms=5.0, load=ClosedLoad(max_concurrency=1))))
