"""What `swiftdiff compare` does with configs: it measures them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from compare_fakes import FakeBuild
from fakes import make_request, write_requests
from patience import PATIENCE_S, until

from swiftdiff.cli import main
from swiftdiff.compare import session

SLOW_CLI = Path(__file__).parent.parent / "support" / "slow_compare_cli.py"


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(session, "build_system", FakeBuild())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a.toml").write_text('name = "a"\nengine = "diffusers"\nmodel = "none"\n')
    (tmp_path / "mine/b.toml").write_text('name = "b"\nengine = "swiftdiff"\nmodel = "none"\n')
    write_requests(tmp_path / "t.jsonl", [make_request(f"r{i}", float(i), slo_ms=9000.0) for i in range(3)])


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main.run(["compare", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_a_folder_of_configs_is_measured_and_the_end_says_where_everything_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("mine", "--trace", "t.jsonl", "--repeats", "2") == 0
    captured = capsys.readouterr()
    (folder,) = (tmp_path / "results").iterdir()
    assert folder.name.startswith("compare-")
    assert folder.name.endswith("-t")
    lines = captured.out.splitlines()
    assert max(len(line.rstrip()) for line in lines if str(folder.name) not in line) <= 80
    for text in (
        "How much faster than a", "95 % interval", "What it costs", "Is it still the picture of a?",
        "2 repeats, systems in turn (A B C, A B C, …)", f"results/{folder.name}/report.html",
    ):  # fmt: skip
        assert text in captured.out
    assert "b, repeat 2 of 2" in captured.err
    assert (folder / "b/2/requests.jsonl").is_file()
    assert (folder / "report.html").is_file()


def test_what_was_measured_is_shown_again_and_compared_with_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("mine", "--trace", "t.jsonl", "--repeats", "1", "--out", "one", "--json") == 0
    fresh = json.loads(capsys.readouterr().out)
    assert fresh == json.loads(Path("one/comparison.json").read_text())
    assert fresh["runs"][1]["num_paired"] == 3
    assert run("one", "--json", "--baseline", "b") == 0
    assert json.loads(capsys.readouterr().out)["baseline"] == "b"
    assert run("one/a", "one/b", "--out", "elsewhere") == 0
    assert "How much faster than a" in capsys.readouterr().out
    assert Path("elsewhere/comparison.json").is_file()


def test_fail_below_is_about_the_intervals_lower_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("mine", "--trace", "t.jsonl", "--repeats", "1", "--out", "o", "--fail-below", "1e-6") == 0
    capsys.readouterr()
    assert run("o", "--fail-below", "1e6") == 1
    assert "b is not shown to be 1e+06 times as fast: its interval begins at" in capsys.readouterr().err


def test_a_system_that_cannot_start_is_shown_and_the_exit_code_is_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "build_system", FakeBuild(cannot_start=("b",)))
    assert run("mine", "--trace", "t.jsonl", "--repeats", "2", "--out", "o") == 1
    captured = capsys.readouterr()
    assert "b, repeat 1 of 2 failed: the model is not there" in captured.err
    assert "only a has runs" in captured.out
    assert "swiftdiff compare --resume o" in captured.out
    monkeypatch.setattr(session, "build_system", FakeBuild())
    assert run("--resume", "o") == 0
    assert "How much faster than a" in capsys.readouterr().out


def test_a_sweep_ends_in_a_table_of_rates(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ("--sweep-rate", "--goodput", "e2el:0.001", "--out", "o")
    assert run("mine", "--trace", "t.jsonl", *sweep) == 0
    out = capsys.readouterr().out
    assert "Requests a second that hold the SLO" in out
    assert "Throughput against load" in out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name systems or runs"),
        (("mine/a.toml",), "name at least two systems"),
        (("mine", "mine/a.toml"), "two systems are called 'a' and 'a'"),
        (("mine", "t.jsonl"), "not both"),
        (("mine", "--trace", "none.jsonl"), "cannot read trace none.jsonl"),
        (("mine", "--baseline", "c"), "--baseline is 'c', but must be one of a, b"),
        (("mine", "--speed", "2", "--max-concurrency", "1"), "exclude each other"),
        (("mine", "--sweep-rate", "--max-concurrency", "1"), "chooses when requests arrive"),
        (("mine", "--sweep-rate", "--fail-below", "1"), "--fail-below is about speed-ups"),
        (("mine", "--slo-attainment", "0.5"), "only with --sweep-rate"),
        (("mine", "--sweep-rate", "--slo-attainment", "2"), "--slo-attainment is 2.0"),
        (("mine", "--fail-below", "nan"), "--fail-below is nan"),
        (("mine", "--out", "mine"), "is not empty; name another"),
        (("nowhere", "--repeats", "2"), "--repeats has a meaning only where configs are measured"),
        (("nowhere", "elsewhere"), "nowhere is not there"),
        (("--resume", "mine"), "is no comparison's folder"),
        (("--resume", "mine", "--repeats", "2"), "--resume goes on as the comparison began"),
    ],
)
def test_mistakes_are_one_line_with_exit_code_2_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    trace = () if "--trace" in arguments or "mine" not in arguments[:1] else ("--trace", "t.jsonl")
    assert run(*arguments, *trace) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not Path("results").exists()


def test_ctrl_c_ends_cleanly_and_resume_keeps_what_is_finished(tmp_path: Path) -> None:
    out = tmp_path / "o"
    arguments = ("mine", "--trace", "t.jsonl", "--repeats", "2", "--out", str(out))
    process = subprocess.Popen(
        [sys.executable, str(SLOW_CLI), "b", "compare", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        records = out / "b/1/requests.jsonl"
        until(lambda: records.exists() and records.read_bytes())
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert f"swiftdiff compare --resume {out}" in stdout
    first = (out / "a/1/requests.jsonl").read_bytes()
    assert run("--resume", out) == 0
    assert (out / "a/1/requests.jsonl").read_bytes() == first
    written = json.loads((out / "comparison.json").read_text())
    assert [each["num_requests"] for each in written["runs"]] == [6, 6]
    assert [each["sessions"] for each in written["runs"]] == [2, 2], "no run was continued in its middle"
