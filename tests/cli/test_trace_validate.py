from __future__ import annotations

import json
from pathlib import Path

import pytest
from trace_requests import requests_at, trace_of, with_loras

from swiftdiff.cli import main


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main.run(["trace", "validate", *map(str, arguments)])
    return int(caught.value.code or 0)


@pytest.fixture(autouse=True)
def _narrow_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def bad(*lines: str) -> Path:
    path = trace_of(Path("t.jsonl"), requests_at(0, 1))
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)
    return path


def test_a_right_trace_ends_with_0_even_with_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(trace_of(Path("t.jsonl"), with_loras(["mine", "neon"]))) == 0
    out = capsys.readouterr().out
    assert out.startswith("warning: LoRA ids that the model shapes lacks\n")
    assert out.endswith("t.jsonl: 2 requests in 2 lines; 0 errors, 1 warning\n")


def test_all_errors_are_shown_at_80_columns_and_end_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    image = '{"request_id": "x", "timestamp": 2, "prompt": "", "controlnets": [{"id": "e", "image": "../x"}]}'
    assert run(bad("{}", image, "{}", '{"\\u001b[31m": 1}')) == 1
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "error: prompt is missing\n    3 × in line 3, 5, 6\n    field prompt is missing\n" in out
    assert "\x1b" not in out  # what a file holds cannot colour the terminal
    assert "t.jsonl: 2 requests in 6 lines; 11 errors, 0 warnings" in out


def test_it_stops_after_so_many_errors_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bad("{}", "{}", "{}"), "--max-errors", 1) == 1
    assert capsys.readouterr().out.endswith("INCOMPLETE: what follows line 3 was not checked\n")


def test_json_is_all_that_json_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bad("["), "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["num_errors"], found["num_warnings"], found["complete"]) == (1, 0, True)
    assert found["findings"][0]["lines"] == [3]


def test_a_file_that_cannot_be_opened_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nothing.jsonl") == 2
    assert "cannot read trace nothing.jsonl" in capsys.readouterr().err
