"""Metrics by networks are asked for on the command line, and missed before anything is measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from run_folders import make_run, served

from swiftdiff.cli import main
from swiftdiff.config import ServingConfig


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main.run(["compare", *map(str, arguments)])
    return int(caught.value.code or 0)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    configs = [ServingConfig(name=name, engine="diffusers", model="none") for name in ("stock", "mine")]
    return [make_run(Path(config.name), [served("a", 1.0)], config=config) for config in configs]


@pytest.mark.parametrize("metric", ["clip", "lpips", "fid"])
def test_a_missing_package_is_one_line_and_nothing_is_measured(
    runs: list[Path], metric: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert run(*runs, "--metrics", metric, "--out", "out") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "pip install 'swiftdiff[quality]'" in captured.err
    assert not Path("out").exists()


def test_weights_alone_and_unknown_metrics_are_mistakes(
    runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*runs, "--weights", "somewhere") == 2
    assert "--weights has a meaning only with --metrics" in capsys.readouterr().err
    assert run(*runs, "--metrics", "vibes") == 2
    assert "one of clip, lpips, fid" in capsys.readouterr().err


def test_whether_pictures_are_the_same_is_said_right_after_how_fast(
    runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*runs) == 0
    out = capsys.readouterr().out
    headline, verdict, rest = (
        out.index(text) for text in ("How much faster than", "Is it still the picture of", "Side by side")
    )
    assert headline < verdict < rest
    assert "identical pictures (1)" in out
