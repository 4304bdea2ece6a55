"""The whole way with real systems at tiny size: measured in processes of their own, compared, written."""

from __future__ import annotations

import json
from pathlib import Path

from fakes import write_requests
from serving import draw_controls, request

from swiftdiff.compare.plan import find_configs, make_plan
from swiftdiff.compare.report import report_measured, write_report
from swiftdiff.compare.session import start_comparison, take_turns
from swiftdiff.engine.options import ReplayOptions
from swiftdiff.request import ControlNetUse, LoraUse


def test_stock_and_engine_make_the_same_pictures_and_the_report_says_so(
    tmp_path: Path, tiny_family: Path
) -> None:
    draw_controls(tmp_path)
    nets = (ControlNetUse(id="edges", image="control.png"),)
    trace = write_requests(
        tmp_path / "trace.jsonl", [request("a"), request("b", controlnets=nets, loras=(LoraUse(id="neon"),))]
    )
    for name, engine in (("stock", "diffusers"), ("fast", "swiftdiff")):
        text = f'name = "{name}"\nengine = "{engine}"\nmodel = "{tiny_family}"\nthreads = 1\n'
        (tmp_path / f"{name}.toml").write_text(text)
    systems = find_configs([tmp_path / "stock.toml", tmp_path / "fast.toml"])
    plan = make_plan(trace, systems, ReplayOptions(), baseline="stock", repeats=1)
    ended = start_comparison(plan, tmp_path / "out", take_turns, argv=["swiftdiff", "compare"])
    report = report_measured(ended.folder)
    assert report.num_failed == 0, report.values
    write_report(report, ended.folder.path)
    values = json.loads((tmp_path / "out/comparison.json").read_text())
    (quality,) = values["quality"]
    assert (quality["pictures"], quality["verdict"]["kind"]) == (2, "same")
    assert [row["measure"] for row in values["tables"]["settings"]][::2] == [
        "0C/0L, mean ms",
        "1C/1L, mean ms",
    ]
    assert values["runs"][1]["speedup"]["latency"]["mean"] > 0
    assert report.page is not None
    assert {each.system for each in report.page.timelines} == {"stock", "fast"}
