"""Tests of measuring how alike approximate pictures are: real engines on a tiny model."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from serving import LANES

from swiftdiff.bench import approximate_pictures, gpu_approximate
from swiftdiff.bench.approximate_pictures import Asked, LateEngine, likeness_table, main, measure
from swiftdiff.bench.gpu_approximate import ApproximateLine
from swiftdiff.bench.settings import AdapterSetting
from swiftdiff.config import SwiftdiffConfig
from swiftdiff.errors import StorageError

PUBLISHED = Path(__file__).parents[2] / "results" / "published" / "approximate-shapes"
LATE = AdapterSetting(1, 2)
LINES = (
    ApproximateLine("late", {"bal_k": "50%"}, (LATE,)),
    ApproximateLine("same", {"bal_k": 0}, (AdapterSetting(0, 0), LATE)),
)


@pytest.fixture(autouse=True)
def _two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two lines, and an engine that needs no warming up."""
    plain = SwiftdiffConfig(lora_cache_mb=0, lanes=LANES, graph_replay=False, tuned_kernels=False)
    monkeypatch.setattr(approximate_pictures, "_EXACT", plain)
    monkeypatch.setattr(gpu_approximate, "_LINES", LINES)


def asked(model: Path, **fields: object) -> Asked:
    return Asked.model_validate({"model": str(model), "pictures": 2, "steps": 4, **fields})


def test_loras_come_as_late_as_they_may_and_what_is_there_is_not_drawn_again(
    tiny_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = measure(asked(tiny_family), tmp_path / "out")
    assert [(row.system, row.setting, row.picture) for row in rows] == [
        ("late", "1C/2L", 0),
        ("late", "1C/2L", 1),
        ("same", "0C/0L", 0),
        ("same", "0C/0L", 1),
        ("same", "1C/2L", 0),
        ("same", "1C/2L", 1),
    ]
    assert all(set(row.first_steps.values()) == {2} and row.ssim < 0.999 for row in rows[:2])
    assert all(set(row.first_steps.values()) <= {0} and row.ssim == 1 for row in rows[2:])
    (_, late), (_, same) = (
        (row[0], row[1:]) for row in likeness_table(rows, asked(tiny_family)).rows if row[1] == "1C/2L"
    )
    assert (late[-1], same[-1]) == (2, 0)
    assert same[1:5] == (1.0, 1.0, 2, 2)

    raw = tmp_path / "out" / "pictures.jsonl"
    lines = raw.read_bytes().splitlines(keepends=True)
    raw.write_bytes(b"".join(lines[:5]) + lines[5][:20])  # as a killed process leaves it
    drawn: list[str] = []
    draw = LateEngine.draw
    monkeypatch.setattr(
        LateEngine, "draw", lambda self, *given: drawn.append(given[0].request_id) or draw(self, *given)
    )
    assert measure(asked(tiny_family), tmp_path / "out") == rows
    assert drawn == ["1C-2L-1"]
    assert measure(asked(tiny_family), tmp_path / "out") == rows
    with pytest.raises(StorageError, match="begun with other options"):
        measure(asked(tiny_family, steps=5), tmp_path / "out")


def test_what_the_line_up_says_of_pictures_is_what_was_measured_and_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    with (PUBLISHED / "likeness.csv").open(encoding="utf-8", newline="") as file:
        measured = {(row["system"], row["setting"]): float(row["SSIM"]) for row in csv.DictReader(file)}
    lines = gpu_approximate.approximate_lines(on_gpu=False)
    assert set(measured) == {(line.name, each.name) for line in lines for each in line.settings}
    for line in lines:
        kept = [measured[line.name, each.name] >= gpu_approximate.AIM for each in line.settings]
        assert all(kept) == line.is_alike, line.name


def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    for arguments, reason in (
        (("--systems", "fastest"), "fastest"),
        (("--steps", "0"), "--steps"),
        (("--model", "sdxl-fat"), "sdxl-fat"),
    ):
        assert main(["--out", str(tmp_path / "out"), *arguments]) == 2
        assert reason in capsys.readouterr().err
    assert main(["--out", str(tmp_path / "full")]) == 2
    assert "is not empty" in capsys.readouterr().err
