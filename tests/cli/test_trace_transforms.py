from __future__ import annotations

from pathlib import Path

import pytest
from trace_requests import request, requests_at, trace_of

from swiftdiff.cli import main
from swiftdiff.trace import read_trace


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main.run(["trace", *map(str, arguments)])
    return int(caught.value.code or 0)


@pytest.fixture(autouse=True)
def ten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return trace_of(Path("ten.jsonl"), requests_at(*range(10)))


def names(path: str) -> list[str]:
    return [request.request_id for request in read_trace(path)]


def test_slice_says_what_it_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("slice", "ten.jsonl", "-o", "out.jsonl", "--from", 2, "--to", "4") == 0
    captured = capsys.readouterr()
    assert captured.out == "out.jsonl: 2 requests\n"
    assert captured.err == ""
    assert names("out.jsonl") == ["r2", "r3"]


def test_slice_by_count_keeps_times_if_asked() -> None:
    assert run("slice", "ten.jsonl", "-o", "out.jsonl", "--start", 4, "--count", 2, "--keep-times") == 0
    assert [request.timestamp for request in read_trace("out.jsonl")] == [4000, 5000]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "say which part: --from and --to, or --start and --count"),
        (("--from", 1, "--count", 2), "but not both"),
        (("--from", -1), "--from is -1.0, but must be a number of seconds, at least 0"),
        (("--from", "nan"), "--from is nan"),
        (("--from", 3, "--to", 3), "--to is 3.0, but must be more than --from, 3"),
        (("--to", "nan"), "--to is nan"),
        (("--start", -1), "--start is -1, but must be at least 0"),
        (("--count", 0), "--count is 0, but must be at least 1"),
        (("--from", 50), "no request is left by --from 50"),
    ],
)
def test_a_wrong_part_is_one_clear_line(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("slice", "ten.jsonl", "-o", "out.jsonl", *options) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not Path("out.jsonl").exists()


def test_scale_takes_a_speed_or_a_rate(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("scale", "ten.jsonl", "-o", "a.jsonl", "--speed", 2) == 0
    assert run("scale", "ten.jsonl", "-o", "b.jsonl", "--request-rate", 2) == 0
    assert capsys.readouterr().out.splitlines()[1] == "b.jsonl: 10 requests, 2 times as fast"
    assert list(read_trace("a.jsonl")) == list(read_trace("b.jsonl"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "say how fast: --speed or --request-rate"),
        (("--speed", 2, "--request-rate", 2), "but not both"),
        (("--speed", 0), "--speed is 0.0, but must be a number above 0"),
        (("--request-rate", "inf"), "--request-rate is inf"),
    ],
)
def test_a_wrong_speed_is_one_clear_line(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("scale", "ten.jsonl", "-o", "out.jsonl", *options) == 2
    assert message in capsys.readouterr().err


def test_merge_needs_two_traces_and_different_ids(capsys: pytest.CaptureFixture[str]) -> None:
    trace_of(Path("b.jsonl"), [request("r3", 2.5)])
    assert run("merge", "ten.jsonl", "-o", "out.jsonl") == 2
    assert run("merge", "ten.jsonl", "b.jsonl", "-o", "out.jsonl") == 2
    assert "'r3' is in both ten.jsonl and b.jsonl" in capsys.readouterr().err
    assert run("merge", "ten.jsonl", "b.jsonl", "-o", "out.jsonl", "--prefix") == 0
    assert names("out.jsonl")[2:5] == ["1-r2", "2-r3", "1-r3"]
    assert run("merge", "ten.jsonl", "b.jsonl", "-o", "out.jsonl", "--prefix") == 2
    assert run("merge", "ten.jsonl", "b.jsonl", "-o", "out.jsonl", "--prefix", "--force") == 0


def test_ctrl_c_leaves_nothing(ten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    trace_of(Path("sub/t.jsonl"), [request(controlnets=["edges"]), request("r1", 1, controlnets=["depth"])])
    monkeypatch.setattr("swiftdiff.trace.writer.format_request", interrupted)
    assert run("slice", "sub/t.jsonl", "-o", "out.jsonl", "--start", 0) == 130
    assert sorted(Path().iterdir()) == [Path("sub"), ten]
