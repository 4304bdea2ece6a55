"""The process: signals, ports, and what is left of it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from patience import PATIENCE_S, until

SCRIPT = Path(__file__).resolve().parent.parent / "support" / "server_cli.py"


class Process:
    """A server in a process of its own, whose steps wait until they are let go."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.log = folder / "access.jsonl"
        self.gate = folder / "gate"
        options = ("--port", "0", "--access-log", str(self.log), *options)
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(self.gate), *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.url = ""

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        match = re.search(r"http://[^/]+", first)
        assert match is not None, first
        self.url = match[0]

    def ask(self) -> httpx.Response:
        body = {"prompt": "a red circle", "num_inference_steps": 2}
        return httpx.post(f"{self.url}/v1/images/generations", json=body, timeout=PATIENCE_S)

    def records(self) -> dict[str, int]:
        lines = map(json.loads, self.log.read_text().splitlines())
        return {line["request_id"]: line["http_status"] for line in lines}

    def holds(self, count: int) -> bool:
        """Tell whether it serves one request and all others of so many wait."""
        text = httpx.get(f"{self.url}/metrics", timeout=PATIENCE_S).text
        return {"swiftdiff_in_service 1.0", f"swiftdiff_queue_waiting {count - 1}.0"} <= {*text.splitlines()}

    def is_draining(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready", timeout=PATIENCE_S).status_code == 503
        except httpx.TransportError:
            return True  # it takes no connections any more


@contextmanager
def process(folder: Path, *options: str) -> Iterator[Process]:
    server = Process(folder, *options)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


def ask_at_once(server: Process, pool: ThreadPoolExecutor, count: int) -> list[Future[httpx.Response]]:
    answers = [pool.submit(server.ask) for _ in range(count)]
    until(lambda: server.holds(count))
    return answers


def test_sigterm_serves_what_was_accepted_and_ends_well(tmp_path: Path) -> None:
    with process(tmp_path, "--drain", "120") as server, ThreadPoolExecutor(4) as pool:
        answers = ask_at_once(server, pool, 3)
        server.process.send_signal(signal.SIGTERM)
        until(server.is_draining)
        server.gate.touch()
        assert [answer.result().status_code for answer in answers] == [200] * 3
        assert server.process.wait(PATIENCE_S) == 0
        assert list(server.records().values()) == [200] * 3


def test_what_is_not_served_when_the_time_to_drain_is_over_is_told_so(tmp_path: Path) -> None:
    with process(tmp_path, "--drain", "1") as server, ThreadPoolExecutor(4) as pool:
        answers = ask_at_once(server, pool, 2)
        server.process.send_signal(signal.SIGTERM)
        for answer in answers:
            assert answer.result().status_code == 503
            assert answer.result().json()["error"]["code"] == "server_draining"
        assert server.process.wait(PATIENCE_S) == 0
        assert list(server.records().values()) == [503] * 2


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with process(tmp_path, "--drain", "120") as server, ThreadPoolExecutor(4) as pool:
        server.gate.touch()
        done = pool.submit(server.ask).result()
        server.gate.unlink()
        answers = ask_at_once(server, pool, 2)
        server.process.send_signal(signal.SIGTERM)
        until(server.is_draining)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == -signal.SIGTERM
        for answer in answers:
            assert isinstance(answer.exception(), httpx.TransportError)
        assert list(server.records()) == [done.headers["X-Request-Id"]]


def test_kill_9_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    with process(tmp_path) as server, ThreadPoolExecutor(8) as pool:
        server.gate.touch()
        answers = [pool.submit(server.ask) for _ in range(200)]
        until(lambda: sum(answer.done() for answer in answers) >= 60)
        server.process.kill()
        answered = [answer.result() for answer in answers if answer.exception() is None]
        assert len(answered) >= 60
        records = server.records()
        for answer in answered:
            assert records[answer.headers["X-Request-Id"]] == answer.status_code


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), os.devnull, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


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
