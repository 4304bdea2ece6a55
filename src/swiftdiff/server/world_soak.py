"""Watches a world for minutes: is its rate steady, is memory flat, is nothing dropped, is steering seen?

Usage: ``python -m swiftdiff.server.world_soak [--minutes 5] [--model bounce] [--threads 1]
[--browser chromium] [--out DIR]``. With a browser (and Playwright) the page itself is watched and its own
controls steer, else a plain HTTP client does both. Every ten seconds the world is asked for another action or
prompt. The last line is JSON.

Exit codes: 0 the stream held; 1 it did not, and the table says in what; 2 a mistake, or the stream broke off;
130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import psutil

from swiftdiff.errors import ConfigError, RequestError, SwiftdiffError
from swiftdiff.report.tables import to_markdown
from swiftdiff.server.config import ServerConfig
from swiftdiff.server.world_config import StreamConfig
from swiftdiff.server.world_run import open_worlds, run_worlds
from swiftdiff.server.world_soak_report import FEWEST, Sample, Watched, judge, soak_table, summary, write_soak
from swiftdiff.telemetry.environment import describe_environment
from swiftdiff.world.config import WorldConfig

EVERY_S = 10.0
MEGABYTE = 1e6
PATIENCE_S = 120.0  # for a first picture
SERVER = "the server ended; what it said stands above"


@dataclass(frozen=True)
class Client:
    """Who watches.

    Attributes:
        progress: Returns frames shown and missed so far; raises SwiftdiffError if the stream broke off.
        steer: Asks for an action or prompt.
        prompts: Returns those of the blocks that were shown since the last call.
        first_picture_ms: From asking for the world to its first picture.
        memory_mb: Returns what the client holds.
    """

    progress: Callable[[], tuple[int, int]]
    steer: Callable[[str], None]
    prompts: Callable[[], set[str]]
    first_picture_ms: float
    memory_mb: Callable[[], float]


def main() -> int:
    """Watch, print and write; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--model", default="bounce")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--browser", metavar="PROGRAM", default=None, help="such as chromium")
    parser.add_argument("--out", metavar="DIR", type=Path, default=None, help="new folder for what was seen")
    options = parser.parse_args()
    try:
        return _run(options)
    except SwiftdiffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    if options.out is not None and options.out.exists():
        raise ConfigError(f"--out {options.out} exists; name another")
    browser = None if options.browser is None else _find_browser(options.browser)
    count = max(FEWEST, round(options.minutes * 60 / EVERY_S) + 1)
    environment = describe_environment(sys.argv) | {"load_before": os.getloadavg()[0]}
    with _server(options.model, options.threads) as (url, pid):
        offer = httpx.get(f"{url}/v1/worlds", timeout=PATIENCE_S).raise_for_status().json()
        watch = _http_client(url, offer) if browser is None else _browser(url, offer, browser)
        with watch as client:
            samples = _watch(client, psutil.Process(pid), count, offer["actions"] or offer["prompts"])
            first_picture_ms = client.first_picture_ms
    name = "a plain HTTP client" if browser is None else Path(browser).name
    watched = Watched(
        options.model, options.threads, name, offer["fps"], first_picture_ms, samples, environment
    )
    findings = judge(watched)
    print("\n" + to_markdown(soak_table(watched, findings)))
    if options.out is not None:
        write_soak(options.out, watched, findings)
        print(f"written: {options.out}")
    print(json.dumps(summary(watched, findings), ensure_ascii=False), flush=True)
    return 0 if all(finding.is_met for finding in findings) else 1


def _watch(client: Client, server: psutil.Process, count: int, texts: list[str]) -> tuple[Sample, ...]:
    began_s = time.monotonic()
    samples: list[Sample] = []
    wanted = itertools.cycle(texts)
    asked: str | None = None
    for number in range(count):
        time.sleep(max(0.0, began_s + number * EVERY_S - time.monotonic()))
        at_s = time.monotonic() - began_s
        frames, missed = client.progress()
        prompts = client.prompts()
        try:
            server_mb = server.memory_info().rss / MEGABYTE
        except psutil.NoSuchProcess:
            raise RequestError(SERVER) from None
        steered = None if asked is None else asked in prompts
        samples.append(Sample(at_s, frames, missed, server_mb, client.memory_mb(), steered))
        _show(samples[-1])
        asked = next(wanted)
        client.steer(asked)
    return tuple(samples)


def _show(sample: Sample) -> None:
    print(
        f"{sample.at_s:6.0f} s {sample.frames:7d} frames {sample.missed:4d} missed   "
        f"server {sample.server_mb:6.1f} MB   browser {sample.client_mb:6.1f} MB",
        flush=True,
    )


@contextmanager
def _server(model: str, threads: int | None) -> Iterator[tuple[str, int]]:
    context = multiprocessing.get_context("spawn")
    parent, child = context.Pipe()
    server = context.Process(target=_serve, args=(model, threads, child))
    server.start()
    child.close()
    try:
        assert server.pid is not None
        try:
            news = parent.recv()
        except EOFError:
            raise RequestError(SERVER) from None
        if isinstance(news, Exception):
            raise news
        yield news, server.pid
    finally:
        server.terminate()
        server.join()


def _serve(model: str, threads: int | None, announce: Connection) -> None:
    try:
        world = WorldConfig(model=model, threads=threads)
        run_worlds(
            ServerConfig(port=0),
            lambda: open_worlds(world, StreamConfig()),
            announce=announce.send,
            loading=lambda: None,
        )
    except SwiftdiffError as error:
        announce.send(ConfigError(str(error)))


@contextmanager
def _http_client(url: str, offer: dict[str, Any]) -> Iterator[Client]:
    counts = {"frames": 0, "missed": 0}
    prompts: list[str] = []
    first = threading.Event()
    ended = threading.Event()
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as http:
        asked_s = time.monotonic()
        answer = http.post("/v1/worlds", json={"prompt": offer["example"], "seed": 0})
        world = answer.raise_for_status().json()

        def read() -> None:
            try:
                with httpx.stream("GET", f"{url}/{world['frames']}", timeout=PATIENCE_S) as response:
                    for line in response.iter_lines():
                        name, _, value = line.partition(": ")
                        if name == "X-Frame":
                            counts["frames"] += 1
                            first.set()
                        elif name == "X-Missed":
                            counts["missed"] = int(value)
                        elif name == "X-Prompt":
                            prompts.append(unquote(value))
            except httpx.HTTPError as error:
                print(f"the stream broke off: {error}", file=sys.stderr)
            finally:
                ended.set()
                first.set()

        def progress() -> tuple[int, int]:
            if ended.is_set():
                raise RequestError("the stream ended before its time")
            return counts["frames"], counts["missed"]

        def steer(text: str) -> None:
            body = {"text": text, "blocks": 1}
            http.post(f"/v1/worlds/{world['id']}/steer", json=body).raise_for_status()

        def shown() -> set[str]:
            taken, prompts[:] = set(prompts), []
            return taken

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        if not first.wait(PATIENCE_S):
            raise RequestError(f"no picture came within {PATIENCE_S:g} s")
        first_ms = 1000 * (time.monotonic() - asked_s)
        try:
            yield Client(progress, steer, shown, first_ms, lambda: 0.0)
        finally:
            http.delete(f"/v1/worlds/{world['id']}")
            reader.join(10)


def _find_browser(program: str) -> str:
    if find_spec("playwright") is None:
        raise ConfigError("--browser needs Playwright: pip install playwright")
    path = shutil.which(program)
    if path is None:
        raise ConfigError(f"--browser: there is no program {program}")
    return path


@contextmanager
def _browser(url: str, offer: dict[str, Any], program: str) -> Iterator[Client]:
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(f"{url}/world/")
            page.locator("#model", has_text="Model").wait_for()
            page.evaluate(_NOTE_CAPTIONS)
            page.get_by_role("button", name="Start the world").click()
            page.locator("#first", has_text="ms").wait_for(timeout=PATIENCE_S * 1000)

            def number(name: str) -> int:
                digits = "".join(filter(str.isdigit, page.locator(f"#{name}").inner_text()))
                return int(digits or 0)

            def progress() -> tuple[int, int]:
                alarm = page.locator("#error")
                if alarm.is_visible():
                    raise RequestError(f"the page says: {alarm.inner_text()}")
                return number("shown"), number("missed")

            def steer(text: str) -> None:
                if text in offer["actions"]:
                    page.get_by_role("button", name=text, exact=True).click()
                else:
                    page.locator("#text").fill(text)
                    page.get_by_role("button", name="Tell it").click()

            def shown() -> set[str]:
                captions = page.evaluate("captions.splice(0)")
                return {caption.partition(": ")[2] for caption in captions}

            yield Client(progress, steer, shown, float(number("first")), _BrowserMemory())
        except Error as error:
            raise RequestError(f"the browser failed: {error.message.splitlines()[0]}") from error
        finally:
            browser.close()


# A block's caption may be gone before anybody looks.
_NOTE_CAPTIONS = """() => {
  window.captions = [];
  const caption = document.getElementById("caption");
  new MutationObserver(() => captions.push(caption.textContent)).observe(caption, { childList: true });
}"""


class _BrowserMemory:
    """Says what a browser's processes hold, in megabytes: all that this process started, but the server.

    Services that chromium starts for itself later are left out: one for models on the device starts after
    three minutes and holds 48 MB with an empty page too.
    """

    def __init__(self) -> None:
        self._known = {process.pid for process in self._processes()}

    def __call__(self) -> float:
        held = 0
        for process in self._processes():
            try:
                if process.pid in self._known or "--type=utility" not in process.cmdline():
                    held += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return held / MEGABYTE

    def _processes(self) -> list[psutil.Process]:
        return [each for each in psutil.Process().children(recursive=True) if _is_browser(each)]


def _is_browser(process: psutil.Process) -> bool:
    try:
        return "chrom" in process.name()
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    sys.exit(main())
