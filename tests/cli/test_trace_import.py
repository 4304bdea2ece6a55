from __future__ import annotations

import json
from pathlib import Path

import pytest

from swiftdiff.cli import main
from swiftdiff.trace import scan_trace
from swiftdiff.trace.importers import IMPORTERS


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main.run(["trace", "import", *map(str, arguments)])
    return int(caught.value.code or 0)


@pytest.fixture(autouse=True)
def _narrow_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def katz() -> Path:
    requests = [
        {
            "timestamp": 1_700_000_000 + i,
            "scene_id": "AB"[i % 2],
            "base_model_id": "a-model-with-a-long-name",
            "controlnets": [f"controlnet-{i}"],
            "loras": ["x", "x"],
        }
        for i in range(4)
    ]
    Path("katz.json").write_text(json.dumps(requests))
    return Path("katz.json")


def test_it_says_at_80_columns_what_was_filled_in_and_what_dropped(
    katz: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("katz", katz, "-o", "out/t.jsonl", "--scene", "A", "--steps", "8") == 0
    captured = capsys.readouterr()
    assert max(len(line.rstrip()) for line in captured.out.splitlines()) <= 80
    for text in (
        "of another service (scene_id)         2",
        "num_inference_steps  8",
        "captions of 64 made-up scenes, in turn",
        "control images drawn      2",
        "trace: out/t.jsonl",
    ):
        assert text in captured.out
    assert captured.err == ""
    assert scan_trace("out/t.jsonl").num_requests == 2


def test_json_is_all_that_json_prints(katz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("katz", katz, "-o", "t.jsonl", "--json", "--seed", "3") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["num_requests"], printed["duration_s"], printed["num_control_images"]) == (4, 3.0, 4)
    assert printed["provenance"]["command"] == "trace import katz"
    assert printed["provenance"]["seed"] == 3


def test_csv_columns_are_mapped(capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_text("time,ids\n5,a\n6,b\n")
    columns = "timestamp=time, loras=ids"
    assert run("csv", "t.csv", "-o", "t.jsonl", "--columns", columns, "--time-unit", "s") == 0
    assert scan_trace("t.jsonl").duration_s == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--columns", "timestamp"], "--columns is 'timestamp', but must be field=column pairs"),
        (["--columns", "loras=a,loras=b"], "--columns is 'loras=a,loras=b', but must be"),
        (["--time-unit", "min"], "--time-unit is 'min', but must be one of 's', 'ms', 'us' or 'ns'"),
        (["--limit", "0"], "--limit is 0, but must be greater than 0"),
        (["--seed", "-1"], "--seed is -1, but must be at least 0"),
        (["--width", "100"], "--width is 100, but must be a multiple of 8 from 8 to 4096"),
        (["--request-rate", "inf"], "--request-rate is inf, but must be a finite number"),
        (["--controlnet-share", "1.5"], "--controlnet-share is 1.5, but must be at most 1"),
        (["--join", "columns"], "--join is 'columns', but must be one of 'rows' or 'uses'"),
        (["--prompts", "missing.txt"], "cannot read trace missing.txt"),
        (["--scene", "A"], "--scene has a meaning only with katz"),
    ],
)
def test_a_wrong_option_is_one_line_and_nothing_is_written(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("t.csv").write_text("timestamp\n1700000000\n")
    assert run("csv", "t.csv", "-o", "out/t.jsonl", *options) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert not Path("out/t.jsonl").exists()


def test_a_trace_that_is_there_is_overwritten_only_if_asked(
    katz: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("t.jsonl").write_text("precious")
    assert run("katz", katz, "-o", "t.jsonl") == 2
    assert capsys.readouterr().err == "error: t.jsonl exists; choose another -o or use --force\n"
    assert Path("t.jsonl").read_text() == "precious"
    assert run("katz", katz, "-o", "t.jsonl", "--force") == 0
    assert Path("t.jsonl").read_text() != "precious"


def test_ctrl_c_ends_with_130_and_nothing_written(
    katz: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("swiftdiff.trace.importers.run.check_order", interrupted)
    assert run("katz", katz, "-o", "out/t.jsonl") == 130
    assert "interrupted: nothing is written" in capsys.readouterr().err
    assert list(Path("out").iterdir()) == []


def test_help_names_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in IMPORTERS)
