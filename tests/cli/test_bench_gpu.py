from __future__ import annotations

import json
from pathlib import Path

import pytest
from gpu_bench_fakes import fake_seams

from swiftdiff.bench import gpu_session
from swiftdiff.cli import main

TINY = ("--model", "shapes", "--setting", "1C/1L", "--systems", "swiftdiff, all-off", "--repeats", "1")


@pytest.fixture(autouse=True)
def _fake_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu_session, "REAL", fake_seams())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main.run(["bench-gpu", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_the_tables_are_shown_and_published_and_fit_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*TINY, "--publish", tmp_path / "published") == 0
    shown = capsys.readouterr()
    out = shown.out
    assert "published: " in shown.err
    (folder,) = (tmp_path / "results").iterdir()
    assert folder.name.startswith("bench-gpu-")
    (published,) = (tmp_path / "published").iterdir()
    assert published.name == "h100-80gb-hbm3-bench"
    tables = out[out.index("shapes, GPU: speed") : out.index("tables: ")]
    assert max(map(len, tables.splitlines())) <= 80
    for text in ("1C/1L swiftdiff", "1C/1L all-off", "% of ceiling", "800 TFLOP/s"):
        assert text in out
    capsys.readouterr()
    assert run("--resume", folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "complete"


def test_a_dry_run_says_on_every_table_that_it_is_one_and_publishes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_session, "REAL", fake_seams(num_gpus=0))
    assert run(*TINY, "--dry-run", "--publish", tmp_path / "published", "--out", "dry") == 0
    shown = capsys.readouterr()
    out = shown.out
    assert "not published: it was a dry run" in shown.err
    assert "DRY RUN ON A CPU" in out
    assert "speed – DRY RUN" in out
    assert not (tmp_path / "published").exists()
    assert json.loads((tmp_path / "dry" / "bench-gpu.json").read_text())["steps"] == 2


def test_numbers_are_shown_also_where_they_cannot_be_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "published").write_text("a file")
    assert run(*TINY, "--publish", tmp_path / "published", "--out", "b") == 2
    shown = capsys.readouterr()
    assert "1C/1L swiftdiff" in shown.out
    assert "error: cannot write" in shown.err
    assert "--resume b --publish DIR" in shown.err
    assert run("--resume", "b", "--publish", tmp_path / "elsewhere", "--json") == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "complete"
    assert (tmp_path / "elsewhere" / "h100-80gb-hbm3-bench" / "report.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--resume", "somewhere", "--steps", "3"), "--resume goes on as the benchmark began"),
        (("--resume", "somewhere"), "somewhere is no benchmark's folder"),
        (("--dry-run", "--bfloat16"), "leave out --bfloat16"),
        (("--setting", "many"), "such as 2C/1L"),
        (("--systems", "fastest"), "fastest"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    shown = capsys.readouterr().err
    assert "error: " in shown
    assert reason in shown


def test_a_machine_without_a_gpu_is_told_what_can_be_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_session, "REAL", fake_seams(num_gpus=0))
    assert run() == 2
    assert "--dry-run tries the same on the CPU" in capsys.readouterr().err
