"""Figures show what was published, and say what has not been."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from swiftdiff.errors import StorageError
from swiftdiff.report.figure_data import KINDS, find_figures
from swiftdiff.report.figure_kinds import Bars, Curves, Measured, Points, Steps
from swiftdiff.report.figures import draw_figure, main

PUBLISHED = Path(__file__).parents[2] / "results" / "published"


def _estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value * 0.9, "high": value * 1.1, "count": 5}


def _bench_result(setting: str, system: str, seconds: float, speedup: float | None) -> dict[str, Any]:
    def spread(value: float) -> dict[str, Any]:
        return {"median": value, "low": value * 0.9, "high": value * 1.2, "count": 5, "method": "range"}

    return {
        "setting": setting,
        "system": system,
        "seconds": spread(seconds),
        "speedup": None if speedup is None else spread(speedup),
    }


def _bench(*results: dict[str, Any]) -> dict[str, Any]:
    return {"stages": [{"model": "shapes", "view": "one-core", "results": list(results)}]}


BENCH = _bench(
    _bench_result("0C/0L", "stock", 1.0, None),
    _bench_result("1C/0L", "stock", 2.0, None),
    _bench_result("1C/0L", "swiftdiff", 1.0, 1.9),
)
SWITCHES = _bench(
    _bench_result("0C/0L", "stock", 1.0, None),
    _bench_result("0C/0L", "all-off", 1.2, 0.8),
    _bench_result("0C/0L", "graphs-only", 0.9, 1.1),
)


def _sweep_point(k: int, score: float) -> dict[str, Any]:
    return {"k": k, "scores": {"style": _estimate(score)}, "latency": _estimate(2 - k / 10) if k else None}


K_SWEEP = {
    "model": "shapes",
    "num_inference_steps": 20,
    "prompts": 24,
    "ks": [0, 4, 8],
    "loras": {"neon": {"points": [_sweep_point(0, 0.9), _sweep_point(8, 0.5)]}, "failed": {"points": []}},
    "overall": [_sweep_point(0, 0.9), _sweep_point(4, 0.8), _sweep_point(8, 0.6)],
}


def _probe(rate: float | None, goodput: float | None) -> dict[str, Any]:
    return {
        "rate": rate,
        "held": True,
        "request_goodput": goodput,
        "p90_e2el_ms": 900.0,
        "slo_attainment_rate": 0.95,
    }


RATE_SWEEP = {
    "sweep": {
        "baseline": "stock",
        "systems": [
            {"system": "stock", "highest_rate_held": 1.0, "probes": [_probe(None, 0.5), _probe(1.0, 1.0)]},
            {"system": "swiftdiff", "highest_rate_held": None, "probes": [_probe(2.0, None)]},
        ],
    }
}


def _run(label: str, service_ms: float | None) -> dict[str, Any]:
    return {"label": label, "model": "shapes", "trace": "/somewhere/mix.jsonl", "mean_service_ms": service_ms}


COMPARISON = {
    "runs": [_run("stock", 2000.0), _run("nirvana", 1500.0), _run("broken", None)],
    "tables": {
        "settings": [
            {"measure": "0C/0L, mean ms", "stock": 1000.0, "nirvana": 500.0, "broken": None},
            {"measure": "  × baseline", "stock": None, "nirvana": 2.0, "broken": None},
        ]
    },
    "waterfall": [
        {"switched_on": name, "mean_latency_s": _estimate(seconds)}
        for name, seconds in (("stock", 2.0), ("+ graphs", 1.5), ("+ kernels", 1.6))
    ],
    "quality": [{"system": "nirvana", "exactness": "approximate", "ssim": _estimate(0.8)}],
}


def _publish(folder: Path, **files: object) -> Path:
    for name, values in files.items():
        place, _, file = name.partition("__")
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / f"{file}.json").write_text(json.dumps(values))
    return folder


def test_a_benchmark_gives_latency_by_setting_with_the_ratios_that_it_published(tmp_path: Path) -> None:
    ((kind, bars),) = find_figures(_publish(tmp_path, cpu__summary=BENCH))
    assert kind == "latency by adapter setting"
    assert isinstance(bars, Bars)
    assert bars.groups == ("0C/0L", "1C/0L")
    assert bars.series["swiftdiff"] == (None, Measured(1.0, 0.9, 1.2, speedup=1.9))
    assert bars.series["stock"][1] == Measured(2.0, 1.8, 2.4)


def test_a_benchmark_of_single_switches_gives_an_ablation_for_each_setting(tmp_path: Path) -> None:
    ((kind, bars),) = find_figures(_publish(tmp_path, cpu__summary=SWITCHES))
    assert kind == "ablation"
    assert isinstance(bars, Bars)
    assert bars.groups == ("stock", "all-off", "graphs-only")
    assert [each.value for each in bars.series["0C/0L"] if each is not None] == [1.0, 1.2, 0.9]


def test_a_comparison_gives_settings_ablation_and_speed_against_quality(tmp_path: Path) -> None:
    found = dict(find_figures(_publish(tmp_path, compare__comparison=COMPARISON)))
    bars, steps, points = found.values()
    assert list(found) == ["latency by adapter setting", "ablation", "speed against quality"]
    assert isinstance(bars, Bars)
    assert bars.series["nirvana"] == (Measured(0.5, speedup=2.0),)
    assert bars.series["broken"] == (None,)
    assert isinstance(steps, Steps)
    assert [(label, each.value) for label, each in steps.steps] == [
        ("stock", 2.0),
        ("+ graphs", 1.5),
        ("+ kernels", 1.6),
    ]
    assert isinstance(points, Points)
    assert points.points["stock"] == (2.0, Measured(1.0))
    assert points.points["nirvana"][0] == 1.5
    assert points.points["nirvana"][1].value == 0.8
    assert "broken" not in points.points


def test_a_sweep_of_k_gives_quality_and_latency_over_k(tmp_path: Path) -> None:
    ((kind, curves),) = find_figures(_publish(tmp_path, k__summary=K_SWEEP))
    assert kind == "k against quality"
    assert isinstance(curves, Curves)
    assert list(curves.panels) == ["style score", "latency, s"]
    assert [(k, each.value) for k, each in curves.panels["style score"]["all LoRAs"]] == [
        (0, 0.9),
        (4, 0.8),
        (8, 0.6),
    ]
    assert [k for k, _ in curves.panels["latency, s"]["neon"]] == [8]
    assert "failed" not in curves.panels["style score"]


def test_a_sweep_of_rates_gives_throughput_against_load(tmp_path: Path) -> None:
    ((kind, curves),) = find_figures(_publish(tmp_path, load__comparison=RATE_SWEEP))
    assert kind == "throughput against load"
    assert isinstance(curves, Curves)
    assert curves.panels["goodput, requests/s"] == {"stock": ((1.0, Measured(1.0)),), "swiftdiff": ()}
    assert curves.panels["p90 latency, s"]["swiftdiff"] == ((2.0, Measured(0.9)),)


def test_every_kind_is_drawn_as_png_and_as_svg_and_the_same_numbers_are_the_same_png(tmp_path: Path) -> None:
    published = _publish(
        tmp_path / "published",
        a__summary=BENCH,
        b__summary=SWITCHES,
        c__comparison=COMPARISON,
        d__summary=K_SWEEP,
        e__comparison=RATE_SWEEP,
    )
    figures = list(find_figures(published))
    assert {kind for kind, _ in figures} == set(KINDS)
    for _, shown in figures:
        for name in ("one.png", "two.png", "one.svg"):
            draw_figure(shown, tmp_path / "out" / shown.name / name)
        folder = tmp_path / "out" / shown.name
        assert (folder / "one.png").read_bytes() == (folder / "two.png").read_bytes()
        with Image.open(folder / "one.png") as picture:
            assert picture.width > 500
            colours = picture.convert("RGB").getcolors(1 << 24)
            assert colours is not None
            assert len(colours) > 20
        assert "<svg" in (folder / "one.svg").read_text()
        assert len(list(folder.iterdir())) == 3


def test_the_command_draws_what_is_there_and_says_what_makes_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = _publish(tmp_path, cpu__summary=BENCH, other__summary={"complete": True})
    assert main([str(published)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (published / "figures" / "cpu-shapes-one-core-latency.png").is_file()
    assert (
        "k against quality: not drawn, no published result has it; it comes from swiftdiff sweep-k" in lines
    )
    assert len(lines) == len(KINDS)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "is not JSON"),
        (b"[]", "an object was expected"),
        (b'{"stages": [{}]}', "is damaged, or of another version"),
        (b'{"ks": [], "overall": [1], "loras": {}}', "is damaged, or of another version"),
        (b'{"runs": []}', "is damaged, or of another version"),
        (b"\xff\xfe", "is not JSON"),
    ],
)
def test_a_damaged_result_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, complaint: str
) -> None:
    (tmp_path / "summary.json").write_bytes(b"{}")
    (tmp_path / "comparison.json").write_bytes(content)
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert "comparison.json" in error


def test_a_folder_that_is_not_there_and_one_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is no folder"):
        list(find_figures(tmp_path / "gone"))
    (tmp_path / "file").write_text("")
    ((_, bars),) = find_figures(_publish(tmp_path / "published", cpu__summary=BENCH))
    with pytest.raises(StorageError, match="cannot write"):
        draw_figure(bars, tmp_path / "file" / "figure.png")


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs the checkout")
def test_what_this_project_published_can_be_read() -> None:
    assert "latency by adapter setting" in {kind for kind, _ in find_figures(PUBLISHED)}
