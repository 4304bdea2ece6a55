from __future__ import annotations

import json
from pathlib import Path

import pytest
from trace_requests import requests_at, trace_of

from swiftdiff.cli import main
from swiftdiff.resources import path as resource

QUICKSTART = resource("quickstart.jsonl")


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main.run(["trace", *map(str, arguments)])
    return int(caught.value.code or 0)


@pytest.fixture(autouse=True)
def _narrow_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def test_tables_fit_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stats", QUICKSTART) == 0
    captured = capsys.readouterr()
    assert max(len(line.rstrip()) for line in captured.out.splitlines()) <= 80
    for title in ("Arrivals", "Adapters per request", "Churn", "LoRAs: hit rate against cache size"):
        assert title in captured.out
    assert captured.err == ""


def test_everything_is_written_into_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stats", QUICKSTART, "--out", "out") == 0
    assert "plots:  out/statistics.png" in capsys.readouterr().out
    for name in ("statistics.md", "statistics.json", "statistics.png", "tables/bins.csv"):
        assert Path("out", name).is_file()
    Path("other").mkdir()
    Path("other/file").touch()
    assert run("stats", QUICKSTART, "--out", "other") == 2
    assert "--out other is not empty" in capsys.readouterr().err


def test_json_is_all_that_json_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stats", QUICKSTART, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["arrivals"]["num_requests"] == 16
    assert found["controlnets"]["lru"]["cache_size"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no requests"),
        ("{}\n", "t.jsonl:1: field request_id is missing"),
        (None, "cannot read trace"),
    ],
)
def test_a_wrong_trace_is_one_line_and_writes_nothing(
    content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path("t.jsonl").write_text(content)
    assert run("stats", "t.jsonl", "--out", "out") == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not Path("out").exists()


def test_a_disk_that_takes_no_more_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    assert run("stats", QUICKSTART, "--out", "out") == 2
    assert "cannot write out/statistics.png: No space left on device" in capsys.readouterr().err
    assert not Path("out/statistics.json").exists()  # which is written last


def test_a_trace_without_adapters_is_described_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stats", trace_of(Path("t.jsonl"), requests_at(0, 1)), "--out", "out") == 0
    assert "Churn" not in capsys.readouterr().out
