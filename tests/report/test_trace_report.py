from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image
from trace_requests import request, requests_at, with_loras

from swiftdiff.errors import StorageError
from swiftdiff.report.tables import Table, to_csv
from swiftdiff.report.trace_report import check_free, origin, write_statistics
from swiftdiff.report.trace_tables import raw_trace_tables, trace_tables
from swiftdiff.trace import Provenance, Source
from swiftdiff.trace.statistics import TraceStatistics, study_trace

SOURCE = Source(name="t.jsonl", sha256="0" * 64)


def studied() -> TraceStatistics:
    requests = with_loras(["a", "b", "a", "c", "a", "b"], every_s=1800)
    return study_trace([*requests, request("last", 20_000, loras=["d"], controlnets=["e"])])


def cells(table: Table) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in table.shown()}


def named(statistics: TraceStatistics) -> dict[str, Table]:
    return {table.name: table for table in trace_tables(statistics)}


def test_tables_show_what_is_in_a_trace() -> None:
    tables = named(studied())
    assert cells(tables["arrivals"])["from first to last"] == ["5.56", "h"]
    assert cells(tables["adapters_per_request"])["1"] == ["7", "100", "1", "14.3"]
    assert cells(tables["use"])["different ids"] == ["4", "1", ""]
    assert cells(tables["use"])["reuse distance, p50"] == ["1", "–", "ids *"]
    assert cells(tables["churn"])["used once"] == ["50.0", "100", "% of ids"]
    assert cells(tables["churn"])["half-life *"] == [
        "2.00",
        "–",
        "h",
    ]  # no ControlNet comes in the first half
    assert cells(tables["loras_hit_rate"])["2"] == ["28.6", "28.6", "66.7", "66.7"]
    assert cells(tables["loras_hit_rate"])["4"] == ["42.9", "42.9", "100.0", "100.0"]
    assert cells(tables["controlnets_hit_rate"])["1"] == ["0.0", "0.0", "–", "–"]


def test_what_is_shown_over_time_adds_up_and_is_short() -> None:
    table = named(studied())["over_time"]
    assert len(table.rows) <= 13
    assert sum(int(row[1] or 0) for row in table.rows) == 7
    assert sum(int(row[2] or 0) for row in table.rows) == 7


def test_many_adapters_of_one_request_share_a_row() -> None:
    statistics = study_trace([request("a", loras=map(str, range(9))), request("b", loras=map(str, range(6)))])
    assert cells(named(statistics)["adapters_per_request"])["5 or more"][0] == "2"


def test_a_trace_without_adapters_has_no_tables_of_them() -> None:
    assert list(named(study_trace(requests_at(0)))) == ["arrivals", "over_time", "adapters_per_request"]


def test_raw_tables_hold_hits_at_every_size() -> None:
    raw = {table.name: table for table in raw_trace_tables(studied())}
    rows = list(csv.reader(to_csv(raw["loras_cache"]).splitlines()))
    assert rows == [
        ["cache_size", "lru_hits", "lfu_hits"],
        ["1", "0", "0"],
        ["2", "2", "2"],
        ["3", "3", "3"],
        ["4", "3", "3"],
    ]


def test_statistics_are_written_as_markdown_csv_json_and_a_page_of_plots(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    write_statistics(studied(), SOURCE, Provenance(command="trace slice", swiftdiff="0"), out)
    assert (out / "statistics.md").read_text().startswith("# t.jsonl\n")
    assert (out / "tables" / "loras_popularity.csv").read_text() == "rank,uses\n1,3\n2,2\n3,1\n4,1\n"
    summary = json.loads((out / "statistics.json").read_text())
    assert summary["loras"]["lru"]["hit_rate_of_reuses"] == [0, 2 / 3, 1, 1]
    assert summary["provenance"]["command"] == "trace slice"
    with Image.open(out / "statistics.png") as page:
        assert page.width > 1000
        assert len(page.getcolors(1 << 20) or ()) > 100  # not an empty page
    write_statistics(studied(), SOURCE, None, out)  # over earlier ones
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("statistics", [study_trace(requests_at(3)), study_trace(requests_at(0, 1e300))])
def test_the_smallest_and_the_longest_trace_can_be_drawn(statistics: TraceStatistics, tmp_path: Path) -> None:
    write_statistics(statistics, SOURCE, None, tmp_path)
    json.loads((tmp_path / "statistics.json").read_text(), parse_constant=pytest.fail)  # no NaN, no infinity


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    check_free(tmp_path)
    check_free(tmp_path / "new")
    (tmp_path / "mine.txt").touch()
    with pytest.raises(StorageError, match="is not empty; name another"):
        check_free(tmp_path)
    (tmp_path / "statistics.md").touch()
    check_free(tmp_path)


def test_what_was_made_up_is_said_even_if_a_parent_made_it_up() -> None:
    parent = Provenance(command="trace import katz", swiftdiff="0", filled_in={"prompt": "x", "seed": "y"})
    child = Provenance(command="trace slice", swiftdiff="0", parent=parent)
    assert origin(child) == ["Made by swiftdiff trace slice. Filled in, not in its source: prompt, seed."]
    assert origin(None) == []
