"""Watches a world for minutes: is its rate steady, is memory flat, is nothing dropped?

Usage: ``python -m swiftdiff.server.world_soak [--minutes 5] [--model bounce] [--browser chromium]``. With a
browser (and Playwright) the page itself is watched, else a plain HTTP client. The world is steered now and
then. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

import httpx
import numpy as np
import psutil

from swiftdiff.errors import ConfigError
from swiftdiff.server.config import ServerConfig
from swiftdiff.server.world_config import StreamConfig
from swiftdiff.server.world_run import open_worlds, run_worlds
from swiftdiff.world.config import WorldConfig

EVERY_S = 10.0
SETTLED = 6  # samples after which memory is compared: caches of all kinds have filled
MEGABYTE = 1e6


@dataclass(frozen=True)
class Sample:
    """What was seen at one moment.

    Attributes:
        at_s: Since the world was asked for.
        frames: That the client showed so far.
        missed: That the server dropped for it so far.
        server_mb: Resident memory of the server.
        client_mb: Of the browser's processes, what they share counted in each; 0 for a plain client.
    """

    at_s: float
    frames: int
    missed: int
    server_mb: float
    client_mb: float


@dataclass(frozen=True)
class Client:
    """Who watches.

    Attributes:
        progress: Returns frames shown and missed so far.
        steer: Pushes once.
        first_picture_ms: Returns how long the first picture took.
        memory_mb: Returns what the client holds.
    """

    progress: Callable[[], tuple[int, int]]
    steer: Callable[[], None]
    first_picture_ms: Callable[[], float]
    memory_mb: Callable[[], float]


def main() -> None:
    """Watch and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--model", default="bounce")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--browser", metavar="PROGRAM", default=None)
    options = parser.parse_args()
    count = max(SETTLED + 2, round(options.minutes * 60 / EVERY_S))
    with _server(options.model, options.threads) as (url, pid):
        watch = _http_client(url) if options.browser is None else _browser(url, options.browser)
        with watch as client:
            samples = _watch(client, psutil.Process(pid), count)
            first_ms = client.first_picture_ms()
    print(json.dumps(summarise(samples) | {"first_picture_ms": round(first_ms, 1)}))


def summarise(samples: list[Sample]) -> dict[str, float]:
    """Return figures of a stream: its rate over each ten seconds, what was missed, and how memory went.

    Args:
        samples: In order of time; more than `SETTLED`.
    """
    at_s = np.array([each.at_s for each in samples])
    rates = np.diff([each.frames for each in samples]) / np.diff(at_s)
    settled = samples[SETTLED:]
    result = {
        "seconds": at_s[-1] - at_s[0],
        "frames": samples[-1].frames,
        "missed": samples[-1].missed,
        "fps_median": np.median(rates),
        "fps_min": rates.min(),
        "fps_max": rates.max(),
    }
    for name in ("server_mb", "client_mb"):
        values = np.array([getattr(each, name) for each in settled])
        slope = np.polyfit(at_s[SETTLED:] / 60, values, 1)[0] if len(values) > 1 else 0.0
        result |= {f"{name}_settled": values[0], f"{name}_last": values[-1], f"{name}_a_minute": slope}
    return {name: round(float(value), 3) for name, value in result.items()}


def _watch(client: Client, server: psutil.Process, count: int) -> list[Sample]:
    began_s = time.monotonic()
    samples = []
    for number in range(count + 1):
        time.sleep(max(0.0, began_s + number * EVERY_S - time.monotonic()))
        frames, missed = client.progress()
        server_mb = server.memory_info().rss / MEGABYTE
        sample = Sample(time.monotonic() - began_s, frames, missed, server_mb, client.memory_mb())
        print(
            f"{sample.at_s:6.0f} s  {frames:6d} frames  {missed:4d} missed  "
            f"server {server_mb:7.1f} MB  browser {sample.client_mb:7.1f} MB",
            flush=True,
        )
        samples.append(sample)
        client.steer()
    return samples


@contextmanager
def _server(model: str, threads: int | None) -> Iterator[tuple[str, int]]:
    context = multiprocessing.get_context("spawn")
    parent, child = context.Pipe()
    server = context.Process(target=_serve, args=(model, threads, child))
    server.start()
    child.close()
    try:
        assert server.pid is not None
        yield parent.recv(), server.pid
    finally:
        server.terminate()
        server.join()


def _serve(model: str, threads: int | None, announce: Connection) -> None:
    world = WorldConfig(model=model, threads=threads)
    run_worlds(
        ServerConfig(port=0),
        lambda: open_worlds(world, StreamConfig()),
        announce=announce.send,
        loading=lambda: None,
    )


@contextmanager
def _http_client(url: str) -> Iterator[Client]:
    counts = {"frames": 0, "missed": 0}
    first_ms: list[float] = []
    with httpx.Client(base_url=url, timeout=120) as http:
        example = http.get("/v1/worlds").raise_for_status().json()["example"]
        asked_s = time.monotonic()
        world = http.post("/v1/worlds", json={"prompt": example, "seed": 0}).raise_for_status().json()

        def read() -> None:
            with httpx.stream("GET", f"{url}/{world['frames']}", timeout=None) as response:
                for line in response.iter_lines():
                    name, _, value = line.partition(": ")
                    if name == "X-Frame":
                        counts["frames"] += 1
                        if not first_ms:
                            first_ms.append(1000 * (time.monotonic() - asked_s))
                    elif name == "X-Missed":
                        counts["missed"] = int(value)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        yield Client(
            lambda: (counts["frames"], counts["missed"]),
            lambda: _push(http, world["id"]),
            lambda: first_ms[0],
            lambda: 0.0,
        )
        http.delete(f"/v1/worlds/{world['id']}")
        reader.join(10)


def _push(http: httpx.Client, world: str) -> None:
    http.post(f"/v1/worlds/{world}/steer", json={"text": "push left", "blocks": 1}).raise_for_status()


@contextmanager
def _browser(url: str, program: str) -> Iterator[Client]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise ConfigError("--browser needs Playwright: pip install playwright") from error
    path = shutil.which(program)
    if path is None:
        raise ConfigError(f"--browser: there is no program {program}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{url}/world/")
        page.locator("#model", has_text="Model").wait_for()
        page.get_by_role("button", name="Start the world").click()
        page.locator("#first", has_text="ms").wait_for(timeout=120_000)

        def number(name: str) -> int:
            digits = "".join(filter(str.isdigit, page.locator(f"#{name}").inner_text()))
            return int(digits or 0)

        yield Client(
            lambda: (number("shown"), number("missed")),
            lambda: page.get_by_role("button", name="push left").click(),
            lambda: float(number("first")),
            _browser_mb,
        )
        browser.close()


def _browser_mb() -> float:
    """Return what the browser's processes hold: all that this process started, but the server."""
    held = 0
    for process in psutil.Process().children(recursive=True):
        try:
            if "chrom" in process.name():
                held += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return held / MEGABYTE


if __name__ == "__main__":
    main()
