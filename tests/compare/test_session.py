from __future__ import annotations

import json
from pathlib import Path

import pytest
from compare_fakes import FakeBuild
from fakes import make_request, write_requests

from swiftdiff.compare.folder import CompareFolder
from swiftdiff.compare.plan import ComparePlan, make_plan
from swiftdiff.compare.report import report_measured, write_report
from swiftdiff.compare.session import CompareEnd, resume_comparison, start_comparison, take_turns
from swiftdiff.config import ServingConfig
from swiftdiff.engine.options import ReplayOptions
from swiftdiff.errors import ConfigError, StorageError


@pytest.fixture
def plan(tmp_path: Path) -> ComparePlan:
    trace = write_requests(tmp_path / "trace.jsonl", [make_request("r1"), make_request("r2", 1.0)])
    systems = [
        ServingConfig(name="stock", engine="diffusers", model="none"),
        ServingConfig(name="fast", engine="swiftdiff", model="none"),
    ]
    return make_plan(trace, systems, ReplayOptions(), baseline="stock", repeats=2, order="abba")


def start(plan: ComparePlan, out: Path, build: FakeBuild) -> CompareEnd:
    return start_comparison(plan, out, take_turns, argv=["swiftdiff", "compare"], build=build)


def resume(out: Path, build: FakeBuild) -> CompareEnd:
    return resume_comparison(out, lambda plan: take_turns, argv=["swiftdiff", "compare"], build=build)


def test_systems_take_turns_each_run_in_a_process_of_its_own(tmp_path: Path, plan: ComparePlan) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    ended = start(plan, out, FakeBuild(log=log))
    assert ended.outcome == "complete"
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [line[0] for line in lines] == ["stock"] * 2 + ["fast"] * 4 + ["stock"] * 2
    assert len({line[2] for line in lines}) == 4
    for place in ("stock/1", "stock/2", "fast/1", "fast/2"):
        for name in ("config.toml", "requests.jsonl", "report.md", "summary.json", "images/r1-0.png"):
            assert (out / place / name).is_file(), f"{place}/{name}: as swiftdiff replay writes it"
    report = report_measured(ended.folder)
    assert report.num_failed == 0
    (lower,) = report.speedups.values()
    assert lower is not None
    assert lower > 0
    measured = report.values["measured"]
    assert [each["place"] for each in measured] == ["stock/1", "fast/1", "fast/2", "stock/2"]
    write_report(report, out)
    written = json.loads((out / "comparison.json").read_text())
    assert written["runs"][1]["speedup"]["latency"]["low"] == lower
    assert written["plan"]["order"] == "abba"
    assert written["quality"][0]["identical"] == 4
    assert "A B C, C B A" in (out / "comparison.md").read_text()
    assert "stock" in (out / "report.html").read_text()


@pytest.mark.parametrize("way", ["cannot_start", "dies"])
def test_a_system_that_fails_fails_alone_is_shown_and_is_tried_again_when_resumed(
    tmp_path: Path, plan: ComparePlan, way: str
) -> None:
    third = ServingConfig(name="third", engine="swiftdiff", model="none")
    plan = plan.model_copy(update={"systems": (*plan.systems, third)})
    out, log = tmp_path / "out", tmp_path / "log"
    ended = start(plan, out, FakeBuild(**{way: ("fast",)}))
    assert ended.outcome == "complete"
    report = report_measured(ended.folder)
    assert report.num_failed == 1
    assert list(report.speedups) == ["third"]
    (failed,) = [table for table in report.tables if table.name == "failed-runs"]
    ((system, place, reason),) = failed.rows
    assert (system, place) == ("fast", "fast/1")
    assert {"cannot_start": "the model is not there", "dies": "ended by signal 9"}[way] in str(reason)
    ended = resume(out, FakeBuild(log=log))
    assert {line.split()[0] for line in log.read_text().splitlines()} == {"fast"}, "finished runs are kept"
    assert report_measured(ended.folder).num_failed == 0
    assert list(report_measured(ended.folder).speedups) == ["fast", "third"]


def test_steps_of_an_ablation_are_compared_but_have_no_ratio_to_reach(
    tmp_path: Path, plan: ComparePlan
) -> None:
    step = ServingConfig(name="step", engine="swiftdiff", model="none")
    plan = plan.model_copy(update={"systems": (*plan.systems, step), "ablation": ("step",), "repeats": 1})
    report = report_measured(start(plan, tmp_path / "out", FakeBuild()).folder)
    assert [run["label"] for run in report.values["runs"]] == ["stock", "fast", "step"]
    assert list(report.speedups) == ["fast"]


def test_without_its_baseline_nothing_is_compared_and_the_reason_is_there(
    tmp_path: Path, plan: ComparePlan
) -> None:
    ended = start(plan, tmp_path / "out", FakeBuild(cannot_start=("stock",)))
    report = report_measured(ended.folder)
    assert "the baseline stock has no finished run" in report.warnings[0]
    assert report.values["comparable"] is False
    assert report.page is None
    write_report(report, tmp_path / "out")
    assert "the model is not there" in (tmp_path / "out/comparison.md").read_text()


def test_requests_that_fail_do_not_fail_the_run(tmp_path: Path, plan: ComparePlan) -> None:
    ended = start(plan, tmp_path / "out", FakeBuild(fails=("fast",)))
    report = report_measured(ended.folder)
    assert report.num_failed == 4
    assert report.speedups == {"fast": None}
    (failures,) = [table for table in report.tables if table.name == "failures"]
    assert failures.rows == (("fast", 4, "AdapterError", "the file is truncated"),)


def test_what_a_cut_off_run_left_is_measured_anew(tmp_path: Path, plan: ComparePlan) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    start(plan, out, FakeBuild())
    (out / "fast/2/summary.json").unlink()
    (out / "fast/2/run.json").unlink()
    stock = (out / "stock/1/requests.jsonl").read_bytes()
    assert resume(out, FakeBuild(log=log)).outcome == "complete"
    assert [line.split()[:2] for line in log.read_text().splitlines()] == [["fast", "r1"], ["fast", "r2"]]
    assert (out / "stock/1/requests.jsonl").read_bytes() == stock
    assert report_measured(CompareFolder.open(out)).num_failed == 0


def test_a_comparison_goes_on_only_with_the_same_trace(tmp_path: Path, plan: ComparePlan) -> None:
    out = tmp_path / "out"
    CompareFolder.create(out, plan)
    write_requests(Path(plan.trace), [make_request("other")])
    with pytest.raises(ConfigError, match="has changed since"):
        resume(out, FakeBuild())


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path, plan: ComparePlan) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    with pytest.raises(StorageError, match="is not empty; name another"):
        CompareFolder.create(tmp_path / "out", plan)
    CompareFolder.create(tmp_path / "new", plan)
    with pytest.raises(StorageError, match="to go on with the comparison in it: --resume"):
        CompareFolder.create(tmp_path / "new", plan)
    with pytest.raises(StorageError, match=r"it has no compare\.json"):
        CompareFolder.open(tmp_path / "out")
    (tmp_path / "new/compare.json").write_text("{")
    with pytest.raises(StorageError, match="is damaged"):
        CompareFolder.open(tmp_path / "new").read_plan()
