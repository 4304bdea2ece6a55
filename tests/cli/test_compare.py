from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_folders import make_run, served

from swiftdiff.cli import main
from swiftdiff.config import ServingConfig


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main.run(["compare", *map(str, arguments)])
    return int(caught.value.code or 0)


@pytest.fixture(autouse=True)
def _narrow_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    names = ("diffusers", "swiftdiff", "swiftdiff-bal", "a-very-long-name-of-a-system-with-one-switch-off")
    configs = [ServingConfig(name=names[0], engine="diffusers", model="none")]
    configs += [ServingConfig(name=name, engine="swiftdiff", model="none") for name in names[1:]]
    return [
        make_run(Path(f"run{i}"), [served(n, 12345.678 / (i + 1)) for n in ("a", "b")], config=config)
        for i, config in enumerate(configs)
    ]


def test_runs_stand_side_by_side_at_80_columns(
    folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*folders, "--out", "out") == 0
    out = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    for text in (
        "Side by side",
        "Speed-up over diffusers",
        "Mean milliseconds by stage",
        "Pictures beside those of diffusers",
        "out/comparison.md",
        "out/report.html",
    ):
        assert text in out
    (paired,) = [line.split() for line in out.splitlines() if line.startswith("service, paired ×")]
    assert paired[-4:] == ["1.00", "2.00", "3.00", "4.00"]
    for name in ("comparison.md", "comparison.json", "tables/stages.csv"):
        assert Path("out", name).is_file()


def test_json_is_all_that_json_prints(folders: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*folders[:2], "--json", "--baseline", "swiftdiff") == 0
    comparison = json.loads(capsys.readouterr().out)
    assert comparison["baseline"] == "swiftdiff"
    assert comparison["runs"][1]["speedup"]["latency"]["paired"] == pytest.approx(0.5)


def test_a_mistake_is_one_line_before_anything_is_written(
    folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folders[0], "results/nowhere", "--out", "out") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "make one with: swiftdiff replay" in captured.err
    assert not Path("out").exists()


def test_forced_tables_say_that_they_were_forced(
    folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    odd = make_run(Path("odd"), [served("a", 1.0)], num_requests=2, trace_sha256="b" * 64)
    assert run(folders[0], odd) == 2
    assert "should not be compared" in capsys.readouterr().err
    assert run(folders[0], odd, "--force") == 0
    assert "NOT COMPARABLE" in capsys.readouterr().out
    assert run(folders[0], odd, "--force", "--out", "out", "--json") == 0
    assert "NOT COMPARABLE" in Path("out/comparison.md").read_text()


def test_out_is_never_written_over_other_things(folders: list[Path]) -> None:
    assert run(*folders, "--out", folders[0]) == 2
    assert not (folders[0] / "comparison.md").exists()
