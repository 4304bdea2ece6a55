"""Which k is chosen, from records that are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swiftdiff.adapters.bal_table import read_bal_table
from swiftdiff.compare.sweep_k_folder import Subject, SweepFolder, SweepRecord
from swiftdiff.compare.sweep_k_options import SweepOptions
from swiftdiff.compare.sweep_k_report import write_sweep_report
from swiftdiff.compare.sweep_k_results import SweepResult, read_result
from swiftdiff.config import ServingConfig

KS = (0, 1, 2, 4)


def quality(
    lora: str, k: int, index: int, style: float | None, attributes: float | None = 1.0
) -> SweepRecord:
    return SweepRecord(
        part="quality",
        lora=lora,
        k=k,
        index=index,
        step_patched=k,
        style=style,
        attributes=attributes,
        ssim=1 - 0.1 * k,
        mean_square=4.0 * k,
        mean_levels=1.0 * k,
        max_levels=2 * k,
    )


def latency(lora: str, k: int, index: int, landed: int) -> SweepRecord:
    return SweepRecord(
        part="latency",
        lora=lora,
        k=k,
        index=index,
        step_patched=landed,
        latency_s=2.0 - 0.1 * k,
        wait_s=0.3,
        restore_s=0.01,
        load_s=0.4,
    )


def make_folder(path: Path, records: list[SweepRecord], **fields: Any) -> SweepFolder:
    config = ServingConfig(name="a", engine="swiftdiff")
    values = {"config": config, "loras": ("neon",), "ks": KS, "prompts": 4, "load_time_ms": 400.0}
    folder = SweepFolder.create(path, SweepOptions.model_validate(values | fields))
    digests = dict.fromkeys(folder.read_options().loras, "cd" * 32)
    folder.write_subject(Subject(weights_sha256="ab" * 32, lora_sha256=digests))
    for record in records:
        folder.append(record)
    return folder


def sweep(path: Path, styles: dict[int, list[float]], **fields: Any) -> SweepResult:
    records = [quality("neon", k, i, style) for k, scores in styles.items() for i, style in enumerate(scores)]
    return read_result(make_folder(path, records, **fields), complete=True)


def test_the_largest_k_is_the_last_whose_interval_stays_within_the_margin(tmp_path: Path) -> None:
    good, spread, bad = [0.9, 0.91, 0.9, 0.92], [0.9, 0.75, 0.9, 0.92], [0.5, 0.5, 0.4, 0.5]
    (neon,) = sweep(tmp_path / "a", {0: good, 1: good, 2: spread, 4: bad}).loras
    assert neon.largest_k == 1
    drop = neon.point(2).drops["style"]  # type: ignore[union-attr]
    assert drop.value < 0.05 < drop.high  # the mean alone would have let it pass
    assert neon.reason == f"k=2: style –{drop.value:.3f} (to {drop.high:.3f})"
    (neon,) = sweep(tmp_path / "b", {0: good, 1: good, 2: spread, 4: bad}, margin={"style": 0.3}).loras
    assert neon.largest_k == 2
    (neon,) = sweep(tmp_path / "c", dict.fromkeys(KS, good)).loras
    assert (neon.largest_k, neon.reason) == (4, None)


def test_a_k_after_one_that_fails_does_not_count_even_if_it_is_good(tmp_path: Path) -> None:
    good, bad = [0.9, 0.91, 0.9, 0.92], [0.5, 0.5, 0.4, 0.5]
    (neon,) = sweep(tmp_path / "a", {0: good, 1: bad, 2: good, 4: good}).loras
    assert neon.largest_k == 0


def test_every_measure_of_the_margin_must_hold(tmp_path: Path) -> None:
    good = [0.9, 0.91, 0.9, 0.92]
    (neon,) = sweep(tmp_path / "a", dict.fromkeys(KS, good), margin={"style": 0.05, "ssim": 0.15}).loras
    assert (neon.largest_k, neon.reason) == (1, "k=2: ssim –0.200 (to 0.200)")


def test_a_lora_that_cannot_be_judged_by_the_margins_measures_waits(tmp_path: Path) -> None:
    records = [quality("mine", k, i, None, None) for k in KS for i in range(4)]
    folder = make_folder(tmp_path / "a", records, loras=("mine",), margin={"style": 0.05})
    (mine,) = read_result(folder, complete=True).loras
    assert (mine.largest_k, mine.reason) == (0, "style cannot be judged")
    folder = make_folder(tmp_path / "b", records, loras=("mine",), margin=0.15)  # ssim is what applies
    (mine,) = read_result(folder, complete=True).loras
    assert mine.largest_k == 1


def test_drops_are_paired_by_request(tmp_path: Path) -> None:
    far_apart = [0.1, 0.9, 0.5, 0.7]
    lower = [value - 0.02 for value in far_apart]
    (neon,) = sweep(tmp_path / "a", {0: far_apart, 1: lower, 2: lower, 4: lower}).loras
    drop = neon.point(1).drops["style"]  # type: ignore[union-attr]
    assert drop.value == pytest.approx(0.02)
    assert drop.high - drop.low < 1e-9
    assert neon.largest_k == 4


def test_the_report_has_tables_plot_summary_and_the_engines_table(tmp_path: Path) -> None:
    loras = ("neon", "gold", "bad")
    records = [
        quality(lora, k, i, 0.9 - (0.3 if k == 4 else 0)) for lora in loras[:2] for k in KS for i in range(4)
    ]
    records += [latency(lora, k, i, min(k, 2)) for lora in loras[:2] for k in KS for i in range(2)]
    records.append(SweepRecord(part="quality", lora="bad", k=0, index=0, error="the file is damaged"))
    folder = make_folder(tmp_path / "a", records, loras=loras)
    result = write_sweep_report(folder, complete=True)
    assert result.failures == ["bad: the file is damaged"]
    table = read_bal_table(folder.path / "bal-table.toml")
    assert {name: entry.k for name, entry in table.loras.items()} == {"neon": 2, "gold": 2}
    assert (table.model, table.weights_sha256, table.margin) == (
        "shapes",
        "ab" * 32,
        {"style": 0.05, "attributes": 0.05},
    )
    landed = (folder.path / "tables/landed.csv").read_text().splitlines()
    assert landed == ["step,arrived before its bound,at the bound", "0,0,4", "1,0,4", "2,4,4"]
    summary = json.loads((folder.path / "summary.json").read_text())
    assert summary["complete"] is True
    assert summary["loras"]["neon"]["largest_k"] == 2
    point = summary["loras"]["neon"]["points"][3]
    assert (point["k"], point["latency"]["value"], point["landed"]) == (4, 1.6, {"2": 2})
    assert point["drops"]["style"]["value"] == pytest.approx(0.3)
    assert summary["overall"][0]["psnr_db"] is None  # the same pictures
    page = (folder.path / "report.html").read_text()
    for text in ("Speed against quality", "style score", "FAILED: bad: the file is damaged", "k=4"):
        assert text in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert (folder.path / "frontier.png").stat().st_size > 10_000
    report = (folder.path / "report.md").read_text()
    for text in ("Largest k by LoRA", "| gold | 2 |", "400 ms emulated", "FAILED: bad", "(frontier.png)"):
        assert text in report
    assert not list(folder.path.glob("*.part")) + list(folder.path.glob("partial*"))


def test_an_incomplete_sweep_gives_the_engine_no_table(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a", [quality("neon", 0, 0, 0.9), quality("neon", 1, 0, 0.9)])
    write_sweep_report(folder, complete=True)
    assert (folder.path / "bal-table.toml").exists()
    write_sweep_report(folder, complete=False)
    assert not (folder.path / "bal-table.toml").exists()
    assert "INCOMPLETE" in (folder.path / "report.md").read_text()


def test_a_sweep_in_which_nothing_was_measured_can_still_be_reported(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a", [])
    result = write_sweep_report(folder, complete=False)
    assert result.overall == ()
    assert json.loads((folder.path / "summary.json").read_text())["loras"]["neon"]["points"] == []
