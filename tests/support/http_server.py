"""A real HTTP server in a thread, around a system whose steps a test can hold."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
from patience import PATIENCE_S
from PIL import Image

from swiftdiff.config import AdapterStoreConfig, ServingConfig
from swiftdiff.errors import RequestError
from swiftdiff.request import ImageRequest
from swiftdiff.server import run
from swiftdiff.server.config import ServerConfig, load_server_config
from swiftdiff.server.job import Job
from swiftdiff.server.run import HttpServer, listen
from swiftdiff.server.service import Server
from swiftdiff.systems.base import Exactness, OnStep, Preview, Served, Waiting
from swiftdiff.telemetry.timeline import Timeline

ADDRESS = "/v1/images/generations"
run.MARGIN_S = PATIENCE_S


class StepSystem:
    """Paints pictures of 8 by 8 with the seed, in steps.

    Attributes:
        go: Cleared, a step waits until it is set.
        free_steps: So many steps do not wait.
        began: Set when a step of a request has begun.
        served: Ids of the requests that came to their end.
        left: Ids of those that were ended from outside.
    """

    name = "steps"
    exactness: Exactness = "exact"
    num_devices = 1

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.free_steps = 0
        self.began = threading.Event()
        self.served: list[ImageRequest] = []
        self.left: list[ImageRequest] = []
        self.in_weights: object = None
        self.on_step: OnStep = lambda step, num_steps, preview: None

    def warm_up(self) -> None: ...

    def watch(self, waiting: Waiting) -> None:
        self.waiting = waiting

    def attend(self, on_step: OnStep) -> None:
        self.on_step = on_step

    def record_to(self, timeline: Timeline) -> None: ...

    def serve(self, request: ImageRequest, images_root: Path) -> Served:
        for use in request.controlnets:
            Image.open(images_root / use.image).load()
        self.in_weights = request.loras
        if request.prompt == "nan":
            raise RequestError(f"request {request.request_id}: NaN in {images_root}")
        if request.prompt == "bug":
            raise ZeroDivisionError(f"at {images_root}")
        picture = Image.new("RGB", (8, 8), (request.seed % 256, 0, 0))
        try:
            for step in range(request.num_inference_steps):
                self.on_step(step, request.num_inference_steps, lambda: [picture] * request.num_images)
                self.began.set()
                assert step < self.free_steps or self.go.wait(PATIENCE_S)
        except Exception:
            self.left.append(request)
            raise
        self.served.append(request)
        return Served([picture] * request.num_images, {"denoise": 0.0}, bytes_loaded=0)

    def stages_so_far(self, request_id: str) -> dict[str, float]:
        return {"text_encode": 0.001}

    def finish(self) -> None:
        following = self.waiting(1)
        if not following or following[0].loras != self.in_weights:
            self.in_weights = None

    def close(self) -> None:
        self.go.set()


def step_config(store: Path) -> ServingConfig:
    """Return the config of a `StepSystem` with the adapters of a folder."""
    return ServingConfig(
        name="steps", engine="swiftdiff", model="shapes", adapters=AdapterStoreConfig(url=str(store))
    )


@dataclass(frozen=True)
class Running:
    """A server that accepts requests.

    Attributes:
        url: Its address.
        server: What answers.
        stop: Ends it.
        log: Its access log.
        client: For requests to it.
    """

    url: str
    server: Server
    stop: Callable[[], None]
    log: Path
    client: httpx.Client

    def post(self, prompt: str = "a red circle", **fields: Any) -> httpx.Response:
        """Ask for pictures."""
        return self.client.post(ADDRESS, json={"prompt": prompt} | fields)

    @contextmanager
    def left(self, **fields: Any) -> Iterator[None]:
        """Ask for pictures; at the block's end the client goes away, whatever it was sent."""
        body = json.dumps({"prompt": "a red circle"} | fields).encode()
        head = f"POST {ADDRESS} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", int(self.url.rsplit(":", 1)[1]))) as client:
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            yield

    @contextmanager
    def held_before(self, step: int) -> Iterator[threading.Event]:
        """Hold requests before a step until the block's end; the event is set once one is held."""
        worker, held, go = self.server.worker, threading.Event(), threading.Event()
        before_step = worker._before_step

        def hold(job: Job, number: int, num_steps: int, preview: Preview) -> None:
            before_step(job, number, num_steps, preview)
            if number == step:
                held.set()
                assert go.wait(PATIENCE_S)

        with mock.patch.object(worker, "_before_step", hold):
            try:
                yield held
            finally:
                go.set()

    def records(self) -> list[dict[str, Any]]:
        """Return what the access log holds, but for a line that is being written."""
        return [json.loads(line) for line in self.log.read_text().splitlines(True) if line.endswith("\n")]


@contextmanager
def running(
    folder: Path, system: ServingConfig, build: Callable[[ServingConfig], Any], **options: Any
) -> Iterator[Running]:
    """Serve on a free port; the server has ended afterwards."""
    log = folder / "access.jsonl"
    config: ServerConfig = load_server_config(None, **({"port": 0, "access_log": str(log)} | options))
    ready = threading.Event()
    listener = listen(config)
    http = HttpServer(config, system, build, ready.set)

    def serve() -> None:
        with suppress(Exception):  # what a test made the system fail with
            http.run(listener)

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        assert ready.wait(5 * PATIENCE_S)  # a model is loaded
        with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
            yield Running(url, http.server, http.stop, log, client)
    finally:
        http.stop()
        thread.join(PATIENCE_S)
        listener.close()
        assert not thread.is_alive()
