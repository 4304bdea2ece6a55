from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeSystem, make_request, read_lines, write_requests
from patience import PATIENCE_S, until

from swiftdiff.cli import main
from swiftdiff.errors import AdapterError
from swiftdiff.request import ImageRequest
from swiftdiff.systems import ENGINES

SLOW_CLI = Path(__file__).parent.parent / "support" / "slow_cli.py"


def _fail_bad(request: ImageRequest) -> None:
    if request.request_id.startswith("bad"):
        raise AdapterError(f"unknown LoRA {'x' * 70!r}; did you mean 'neon'?")


@pytest.fixture(autouse=True)
def _fake_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(ENGINES, "diffusers", lambda config: FakeSystem(service_s=0.001, before=_fail_bad))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main.run(["replay", *map(str, arguments)])
    return int(caught.value.code or 0)


def _trace(folder: Path, *names: str) -> Path:
    return write_requests(
        folder / "trace.jsonl", [make_request(name, 10.0 * i) for i, name in enumerate(names)]
    )


def test_a_trace_alone_is_enough_and_the_end_says_where_everything_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(_trace(tmp_path, "a", "b", "c")) == 0
    out = capsys.readouterr().out
    (folder,) = (tmp_path / "results").iterdir()
    assert folder.name.endswith("-trace-diffusers")
    for place in ("images", "report.md", "tables", "plots/latency.png", "requests.jsonl"):
        assert f"results/{folder.name}/{place}" in out
        assert (folder / place).exists()
    for text in ("Latency", "p99", "denoise", "Throughput and cost", "requests/s", "device-s/image"):
        assert text in out


def test_everything_but_paths_fits_80_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(
        _trace(tmp_path, "a", "bad-with-a-very-long-request-id-that-goes-on-and-on-and-on", "c"), "--out", "o"
    )
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80


def test_no_digit_is_cut_off_however_slow_the_requests(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from swiftdiff.cli.terminal import print_table
    from swiftdiff.report.tables import AUTO, Column, Table

    columns = (Column("ms"), *(Column(f"p{n}", AUTO) for n in range(12)))
    table = Table("latency", "Latency", columns, (("controlnet_load", *(1234567 for _ in range(12))),))
    print_table(Console(width=80), table)
    assert "".join(capsys.readouterr().out.split()).count("7") >= 12


def test_failures_are_shown_with_reasons_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(_trace(tmp_path, "a", "bad", "c"), "--out", "run") == 1
    out = capsys.readouterr().out
    assert "did you mean 'neon'?" in " ".join(out.split())
    assert "AdapterError" in out
    assert json.loads((tmp_path / "run/summary.json").read_text())["failed"] == 1


def test_json_is_the_summary_and_nothing_else_on_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(_trace(tmp_path, "a", "b"), "--out", "run", "--json", "--goodput", "e2el:600000") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["slo_attainment_rate"] == 1.0


def test_chosen_percentiles_are_in_table_and_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(_trace(tmp_path, "a", "b"), "--out", "run", "--metric-percentiles", "25,99.9")
    assert "p99.9" in capsys.readouterr().out
    assert {"p25_e2el_ms", "p99.9_e2el_ms", "p90_e2el_ms"} <= set(
        json.loads((tmp_path / "run/summary.json").read_text())
    )


@pytest.mark.parametrize(
    ("options", "load"),
    [
        (("--speed", "100"), "trace timestamps ×100"),
        (("--request-rate", "inf"), "all at once"),
        (
            ("--request-rate", "900", "--burstiness", "0.5", "--seed", "3"),
            "900 requests/s, burstiness 0.5, seed 3",
        ),
        (("--max-concurrency", "2"), "closed loop, 2 at a time"),
    ],
)
def test_load_options_are_used_and_recorded(tmp_path: Path, options: tuple[str, ...], load: str) -> None:
    assert run(_trace(tmp_path, "a", "b", "c"), "--out", "run", "--num-warmups", "1", *options) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["load"], summary["num_warmups"], summary["completed"]) == (load, 1, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.jsonl",), "cannot read trace missing.jsonl"),
        ((), "name a trace"),
        (("trace.jsonl", "--config", "none.toml"), "cannot read config none.toml"),
        (("trace.jsonl", "--speed", "0"), "--speed is 0.0, but must be a number above 0"),
        (("trace.jsonl", "--speed", "nan"), "--speed is nan"),
        (("trace.jsonl", "--request-rate", "-1"), "--request-rate is -1.0"),
        (("trace.jsonl", "--burstiness", "1"), "only with --request-rate"),
        (("trace.jsonl", "--speed", "2", "--max-concurrency", "1"), "exclude each other"),
        (("trace.jsonl", "--goodput", "ttft:5"), "--goodput is 'ttft:5'"),
        (("trace.jsonl", "--metric-percentiles", "50,200"), "numbers from 0 to 100"),
        (("trace.jsonl", "--out", "taken"), "--out taken is not empty"),
        (("trace.jsonl", "--out", "trace.jsonl"), "--out trace.jsonl is not empty"),
        (("--resume", "taken"), "taken is no run's folder"),
        (("--resume", "taken", "--limit", "3"), "--resume goes on as the run began"),
        (("empty.jsonl",), "no requests"),
        (("wrong.jsonl",), "wrong.jsonl:1: num_inference_steps is 'ten', but must be an integer"),
    ],
)
def test_mistakes_are_one_line_with_exit_code_2_and_leave_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    _trace(tmp_path, "a")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    (tmp_path / "empty.jsonl").touch()
    wrong = {"request_id": "a", "timestamp": 0, "prompt": "x", "num_inference_steps": "ten"}
    (tmp_path / "wrong.jsonl").write_text(json.dumps(wrong) + "\n")
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (tmp_path / "results").exists()


def test_relative_paths_in_a_config_count_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "configs" / "adapters").mkdir(parents=True)
    config = tmp_path / "configs" / "here.toml"
    config.write_text('name = "here"\nengine = "diffusers"\n[adapters]\nurl = "adapters"\n')
    assert run(_trace(tmp_path, "a"), "--config", config, "--out", "run") == 0
    assert f'url = "{tmp_path}/configs/adapters"' in (tmp_path / "run/config.toml").read_text()


@contextlib.contextmanager
def _stopping_run(num_served: int, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(SLOW_CLI), str(num_served), "replay", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_for_records(path: Path, count: int) -> None:
    until(lambda: path.exists() and path.read_bytes().count(b"\n") >= count)


def test_ctrl_c_ends_cleanly_with_what_finished_and_resume_goes_on(tmp_path: Path) -> None:
    trace = _trace(tmp_path, *(f"r{i}" for i in range(5)))
    out = tmp_path / "run"
    with _stopping_run(2, trace, "--out", out) as process:
        _wait_for_records(out / "requests.jsonl", 2)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert f"swiftdiff replay --resume {out}" in stdout
    summary = json.loads((out / "summary.json").read_text())
    assert summary["complete"] is False
    assert summary["completed"] == 2
    assert run("--resume", out) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["complete"], summary["completed"], summary["sessions"]) == (True, 5, 2)
    assert [line["request_id"] for line in read_lines(out / "requests.jsonl")] == [f"r{i}" for i in range(5)]
    assert len(list((out / "images").glob("*.png"))) == 5


def _may_mount() -> bool:
    return sys.platform == "linux" and os.geteuid() == 0 and shutil.which("mount") is not None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system with 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        _may_mount()
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        ).returncode
    )
    if not mounted:
        pytest.skip("needs root and the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full_stops_the_run_in_one_sentence_and_resume_finishes_it(
    tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ballast = small_disk / "ballast"

    def fill(request: ImageRequest) -> None:
        if request.request_id == "r2" and not ballast.exists():
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 512)

    monkeypatch.setitem(ENGINES, "diffusers", lambda config: FakeSystem(service_s=0.001, before=fill))
    trace = _trace(tmp_path, "r0", "r1", "r2", "r3")
    out = small_disk / "run"
    code = run(trace, "--out", out)
    captured = capsys.readouterr()
    assert code in (1, 2)  # depending on whether the last page still takes the short records
    assert "No space left on device" in captured.out + captured.err
    assert "Traceback" not in captured.err
    assert ("report.md" in captured.out) == (out / "report.md").exists()
    before = [line["request_id"] for line in read_lines(out / "requests.jsonl")]
    assert before[:2] == ["r0", "r1"]
    ballast.unlink()
    ballast.touch()
    assert run("--resume", out) in (0, 1)
    ids = [line["request_id"] for line in read_lines(out / "requests.jsonl")]
    assert ids == ["r0", "r1", "r2", "r3"]
