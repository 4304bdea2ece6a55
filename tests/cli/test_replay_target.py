from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fake_image_server import pictures, serving
from fakes import make_request, write_requests
from patience import PATIENCE_S, until

from swiftdiff.cli import main


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main.run(["replay", *map(str, arguments)])
    return int(caught.value.code or 0)


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return write_requests(tmp_path / "trace.jsonl", [make_request(f"r{i}", 5.0 * i) for i in range(3)])


def test_a_target_gives_the_same_tables_and_folder(
    tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as server:
        assert run(trace, "--target", f"{server.url}/v1") == 0
    out = capsys.readouterr().out
    for text in ("client_queue", "queue", "denoise", "http", "Throughput and cost"):
        assert text in out
    assert max(len(line.rstrip()) for line in out.splitlines() if "results/" not in line) <= 80
    (folder,) = (tmp_path / "results").iterdir()
    for name in (
        "config.toml",
        "environment.json",
        "run.json",
        "requests.jsonl",
        "summary.json",
        "report.md",
    ):
        assert (folder / name).is_file(), name
    assert len(list((folder / "images").glob("*.png"))) == 3
    assert json.loads((folder / "timeline.json").read_text())


def test_failures_over_http_are_exit_code_1(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda body: (429, {"error": {"message": "the queue is full"}})) as server:
        assert run(trace, "--target", server.url, "--out", "run") == 1
    out = capsys.readouterr().out
    assert "HTTP 429" in out
    assert "the queue is full" in " ".join(out.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--target", "nowhere"), "--target is 'nowhere', but must be an address"),
        (("--target", "http://127.0.0.1:9"), "--target http://127.0.0.1:9 does not answer"),
        (("--target", "http://x", "--config", "c.toml"), "--config: not with --target"),
        (("--target", "http://x", "--adapters", "hash"), "--adapters: not with --target"),
        (("--target", "http://x", "--api-key-file", "none"), "cannot read --api-key-file none"),
        (("--model", "m"), "--model: only with --target"),
    ],
)
def test_mistakes_with_a_target_are_one_line_and_leave_no_folder(
    tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert run(trace, *options) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_keep_what_was_answered_and_resume_goes_on(
    tmp_path: Path, trace: Path, number: signal.Signals
) -> None:
    told = threading.Event()

    def answer(body: dict[str, int]) -> tuple[int, object]:
        if body["seed"] == 9:
            told.wait(2 * PATIENCE_S)
        return pictures(body)

    write_requests(trace, [make_request("a", seed=1), make_request("b", 5.0, seed=9)])
    with serving(answer) as server:  # type: ignore[arg-type]
        command = [sys.executable, "-m", "swiftdiff.cli.main"]
        code = "import sys; from swiftdiff.cli import main; main.run(sys.argv[1:])"
        command = [sys.executable, "-c", code, "replay", str(trace), "--target", server.url, "--out", "run"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
        path = tmp_path / "run" / "requests.jsonl"
        until(lambda: len(server.bodies) == 2 and path.exists() and path.read_bytes())
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130, stderr
        assert "Traceback" not in stderr
        assert "--resume run" in stdout
        told.set()
        assert run("--resume", "run") == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["complete"], summary["completed"], summary["sessions"]) == (True, 2, 2)
