from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import fake_config
from PIL import Image
from run_folders import make_run, served

from swiftdiff.compare.folder import Attempt, CompareFolder
from swiftdiff.compare.plan import make_plan
from swiftdiff.compare.report import report_measured, report_runs, write_report
from swiftdiff.config import ServingConfig, SwiftdiffConfig
from swiftdiff.engine.options import ReplayOptions
from swiftdiff.errors import ConfigError
from swiftdiff.report.comparison_report import check_free


@pytest.fixture
def stock(tmp_path: Path) -> Path:
    return make_run(tmp_path / "stock", [served("a", 1.0), served("b", 2.0), served("c", 6.0)])


@pytest.fixture
def fast(tmp_path: Path) -> Path:
    config = ServingConfig(name="fast", engine="swiftdiff", model="none")
    requests = [served("c", 1.0), served("a", 0.5), served("b", 1.0, queue_wait_s=1.0)]
    return make_run(tmp_path / "fast", requests, config=config)


def test_a_written_comparison_has_tables_and_the_rows_behind_them(
    stock: Path, fast: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "deep"
    check_free(out)
    write_report(report_runs([stock, fast]), out)
    report = (out / "comparison.md").read_text()
    assert report.startswith("# stock and fast on trace.jsonl\n")
    assert "| service, mean × | 1.00 | 3.60 |" in report
    rows = (out / "tables/requests.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 3
    assert "c,fast,1,1000.0,1000.0,100.0,6.0" in rows
    assert (out / "tables/picture_pairs.csv").read_text().splitlines()[1] == "a,0,fast,0,0.0,inf"
    written = json.loads((out / "comparison.json").read_text())
    assert written["runs"][1]["speedup"]["service"]["paired"] == 2.0
    assert written["tables"]["headline"][1]["system"] == "fast"
    assert written["quality"][0]["system"] == "fast"
    check_free(out)  # an earlier comparison may be written over


def test_a_folder_of_runs_is_all_runs_in_it(stock: Path, fast: Path, tmp_path: Path) -> None:
    report = report_runs([tmp_path])
    assert [run["label"] for run in report.values["runs"]] == ["stock", "fast"]
    with pytest.raises(ConfigError, match="name at least two run folders"):
        report_runs([stock])


def test_json_has_no_infinity_although_tables_have(stock: Path, fast: Path) -> None:
    values = report_runs([stock, fast]).values  # identical pictures: their PSNR is infinite
    json.dumps(values, allow_nan=False)


def test_the_page_answers_first_and_shows_the_worst_pictures(stock: Path, fast: Path) -> None:
    Image.new("RGB", (8, 8), (100, 100, 180)).save(fast / "images/c-0.png")
    page = report_runs([stock, fast]).page
    assert page is not None
    assert page.answer.startswith("fast is 2.57 times as fast as stock (95 % interval ")
    assert "NOT EXACT" in page.answer
    assert (page.pictures[0].request_id, page.pictures[0].system) == ("c", "fast")
    assert page.pictures[0].baseline == stock / "images/c-0.png"
    assert [each.system for each in page.distributions] == ["stock", "fast"]
    assert page.distributions[1].seconds == (1.0, 0.5, 2.0)
    assert page.headline.name == "headline"
    assert page.headline.name not in [table.name for table in page.tables]


def test_an_ablation_is_in_tables_page_and_json(stock: Path, fast: Path, tmp_path: Path) -> None:
    off = SwiftdiffConfig(**dict.fromkeys(("graph_replay", "prefetch"), False))
    config = ServingConfig(name="less", engine="swiftdiff", model="none", swiftdiff=off)
    less = make_run(tmp_path / "less", [served(name, 1.5) for name in "abc"], config=config)
    report = report_runs([stock, fast, less])
    steps = report.values["waterfall"]
    assert [step["system"] for step in steps] == ["stock", "less", "fast"]
    assert steps[2]["times_as_fast_as_step_before"]["value"] == pytest.approx(4.5 / 3.5, abs=1e-4)
    assert report.page is not None
    assert [step.seconds for step in report.page.waterfall] == pytest.approx([3.0, 1.5, 3.5 / 3])
    assert "waterfall" in [table.name for table in report.tables]


@pytest.mark.parametrize(
    ("load", "other_cpu_s", "says"),
    [
        (0.1, 0.1, ""),
        (2.0, 0.1, "its load average was 2.00 at the start"),
        (0.1, 5.0, "other processes kept 0.50 cores busy"),
    ],
)
def test_tables_say_so_when_others_used_the_machine(
    tmp_path: Path, load: float, other_cpu_s: float, says: str
) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"request_id": "a", "timestamp": 0, "prompt": "x"}\n')
    systems = [fake_config("stock"), fake_config("fast")]
    folder = CompareFolder.create(
        tmp_path / "out", make_plan(trace, systems, ReplayOptions(), baseline="stock", repeats=1)
    )
    for system, began in zip(systems, (load, 1.9), strict=True):  # the second follows the first's own load
        run = make_run(folder.system_folder(system.name) / "1", [served("a", 1.0)], config=system)
        (run / "summary.json").write_text('{"complete": true}')
        folder.append(
            Attempt(
                system=system.name,
                place=f"{system.name}/1",
                started_at="2026-01-01T00:00:00+00:00",
                wall_s=10.0,
                load_1min=began,
                other_cpu_s=other_cpu_s,
                outcome="complete",
            )
        )
    report = report_measured(folder)
    assert report.order == "One run a system, one after another."
    warnings = " ".join(report.warnings)
    assert ("MACHINE NOT IDLE" in warnings) == bool(says)
    assert says in warnings
