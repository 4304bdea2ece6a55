"""The process: signals, ports, and what is left of it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "support" / "server_cli.py"


class Process:
    """A server in a process of its own."""

    def __init__(self, folder: Path, step_s: float, *options: str) -> None:
        self.log = folder / "access.jsonl"
        options = ("--port", "0", "--access-log", str(self.log), *options)
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(step_s), *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.url = ""

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        match = re.search(r"http://[^/]+", first)
        assert match is not None, first
        self.url = match[0]

    def ask(self, steps: int = 1) -> httpx.Response:
        body = {"prompt": "a red circle", "num_inference_steps": steps}
        return httpx.post(f"{self.url}/v1/images/generations", json=body, timeout=60)

    def records(self) -> dict[str, int]:
        lines = map(json.loads, self.log.read_text().splitlines())
        return {line["request_id"]: line["http_status"] for line in lines}

    def waiting(self) -> int:
        text = httpx.get(f"{self.url}/metrics").text
        return sum(
            int(float(line.split()[1]))
            for line in text.splitlines()
            if line.startswith(("swiftdiff_queue_waiting ", "swiftdiff_in_service "))
        )


@contextmanager
def process(folder: Path, step_s: float, *options: str) -> Iterator[Process]:
    server = Process(folder, step_s, *options)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


def ask_at_once(
    server: Process, pool: ThreadPoolExecutor, count: int, steps: int
) -> list[Future[httpx.Response]]:
    answers = [pool.submit(server.ask, steps) for _ in range(count)]
    while server.waiting() < count:
        time.sleep(0.02)
    return answers


def test_sigterm_serves_what_was_accepted_and_ends_well(tmp_path: Path) -> None:
    with process(tmp_path, 0.2) as server, ThreadPoolExecutor(4) as pool:
        answers = ask_at_once(server, pool, 3, steps=3)
        server.process.send_signal(signal.SIGTERM)
        assert [answer.result().status_code for answer in answers] == [200] * 3
        assert server.process.wait(30) == 0
        assert list(server.records().values()) == [200] * 3


def test_what_is_not_served_when_the_time_to_drain_is_over_is_told_so(tmp_path: Path) -> None:
    with process(tmp_path, 0.2, "--drain", "1") as server, ThreadPoolExecutor(4) as pool:
        answers = ask_at_once(server, pool, 2, steps=100)
        server.process.send_signal(signal.SIGTERM)
        for answer in answers:
            assert answer.result().status_code == 503
            assert answer.result().json()["error"]["code"] == "server_draining"
        assert server.process.wait(30) == 0
        assert list(server.records().values()) == [503] * 2


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with process(tmp_path, 0.2) as server, ThreadPoolExecutor(4) as pool:
        done = pool.submit(server.ask).result()
        answers = ask_at_once(server, pool, 2, steps=100)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.5)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == -signal.SIGTERM
        for answer in answers:
            assert isinstance(answer.exception(), httpx.TransportError)
        assert list(server.records()) == [done.headers["X-Request-Id"]]


def test_kill_9_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    with process(tmp_path, 0.001) as server, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(server.ask) for _ in range(200)]
        while sum(answer.done() for answer in answers) < 60:
            time.sleep(0.02)
        server.process.kill()
        answered = [answer.result() for answer in answers if answer.exception() is None]
        assert len(answered) >= 60
        records = server.records()
        for answer in answered:
            assert records[answer.headers["X-Request-Id"]] == answer.status_code


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), "0", *options], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_port_in_use_is_one_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("--port", port, "--access-log", "none")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"error: cannot listen on 127.0.0.1 port {port}: Address already in use; "
        "choose another with --port (0 is any free one)"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--policy", "lifo"), "policy is 'lifo'"),
        (("--queue-size", "0"), "queue_size is 0"),
        (("--host", "no.such.host.invalid"), "cannot listen on no.such.host.invalid"),
        (("--api-key-file", "/nowhere"), "cannot read API key /nowhere"),
        (("--server", "/nowhere.toml"), "cannot read server config /nowhere.toml"),
        (("--access-log", "/dev/null/x"), "cannot write access log /dev/null/x"),
    ],
)
def test_mistakes_are_one_line(options: tuple[str, ...], message: str) -> None:
    done = run("--port", "0", *options)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith("loading")]
    assert len(lines) == 1
    assert message in lines[0]


def test_a_servers_file_is_strict(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("prot = 1\n")
    done = run("--server", str(file))
    assert "unknown field 'prot'; did you mean 'port'?" in done.stderr
    file.write_text("[limits]\nsteps = 10\n")
    assert "defaults.num_inference_steps that is at most limits.steps" in run("--server", str(file)).stderr
