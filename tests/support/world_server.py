"""A real HTTP server in a thread that shows worlds of a real engine, whose weights are random."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from patience import PATIENCE_S
from PIL import Image

from swiftdiff.server import world_run
from swiftdiff.server.config import load_server_config
from swiftdiff.server.run import listen
from swiftdiff.server.world_config import StreamConfig
from swiftdiff.server.world_run import WorldServer
from swiftdiff.server.world_service import WorldService
from swiftdiff.world.config import SamplerConfig, WorldConfig
from swiftdiff.world.engine import WorldEngine
from swiftdiff.world.loading import WorldModel

SCENE = "red ball at 8,20 moving 1.2,-0.7; blue ball at 20,9 moving -0.5,0.9"
QUICK = WorldConfig(sampler=SamplerConfig(sigmas=(1.0,)), threads=1)
#: Quick, loses no frame of a client that reads, and keeps worlds that nobody watches yet.
LOSSLESS = StreamConfig(fps=200.0, queue_frames=1000, idle_s=600.0)
FRAMES_PER_BLOCK = 3
world_run.MARGIN_S = PATIENCE_S


@dataclass(frozen=True)
class Part:
    """What came through a stream: a picture, or at its end an error."""

    headers: dict[str, str]
    data: bytes

    @property
    def pixels(self) -> np.ndarray[Any, Any]:
        """The picture, [H, W, 3]."""
        return np.asarray(Image.open(io.BytesIO(self.data)))

    @property
    def error(self) -> dict[str, Any]:
        """The error's fields."""
        fields: dict[str, Any] = json.loads(self.data)["error"]
        return fields


def read_parts(chunks: Iterator[bytes]) -> Iterator[Part]:
    """Take a stream apart as the standard says: boundary, headers, an empty line, content."""
    text = b""

    def until(end: int | bytes) -> bytes:
        nonlocal text
        while (at := end if isinstance(end, int) else text.find(end)) < 0 or len(text) < at:
            text += next(chunks)
        skip = 0 if isinstance(end, int) else len(end)
        found, text = text[:at], text[at + skip :]
        return found

    assert until(b"--frame\r\n") == b""
    while True:
        try:
            head = until(b"\r\n\r\n").decode()
        except StopIteration:
            return
        headers = dict(line.split(": ", 1) for line in head.split("\r\n"))
        data = until(int(headers["Content-Length"]))
        assert until(b"\r\n--frame\r\n") == b""
        yield Part(headers, data)


@dataclass(frozen=True)
class RunningWorlds:
    """A server that shows worlds.

    Attributes:
        url: Its address.
        service: The worlds.
        client: For requests to it.
        stop: Ends it, as a signal does, and waits; tells whether all threads ended.
    """

    url: str
    service: WorldService
    client: httpx.Client
    stop: Callable[[], bool]

    def begin(self, prompt: str = SCENE, seed: int | None = 0) -> str:
        """Begin a world and return its name."""
        answer = self.client.post("/v1/worlds", json={"prompt": prompt, "seed": seed})
        assert answer.status_code == 201, answer.text
        name: str = answer.json()["id"]
        return name

    def steer(self, world: str, text: str, blocks: int | None = 1) -> httpx.Response:
        """Ask something of a world."""
        return self.client.post(f"/v1/worlds/{world}/steer", json={"text": text, "blocks": blocks})

    @contextmanager
    def watch(self, world: str) -> Iterator[Iterator[Part]]:
        """Watch a world."""
        with self.client.stream("GET", f"/v1/worlds/{world}/frames") as response:
            assert response.status_code == 200
            assert response.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
            yield read_parts(response.iter_raw())

    def metric(self, name: str) -> float:
        """Return a value that the server counts."""
        lines = self.client.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.split()[0] == name)


@contextmanager
def showing(
    model: WorldModel, world: WorldConfig = QUICK, *, stream: StreamConfig | None = None, **options: Any
) -> Iterator[RunningWorlds]:
    """Show worlds on a free port, as fast as they are made unless told otherwise."""
    config = load_server_config(None, **({"port": 0} | options))
    listener = listen(config)
    service = WorldService(WorldEngine(model, world, profile=False), stream or LOSSLESS)
    ready = threading.Event()
    server = WorldServer(service, config, ready.set)
    ended: list[bool] = []
    thread = threading.Thread(target=lambda: ended.append(server.run(listener)))
    thread.start()

    def stop() -> bool:
        server.stop()
        thread.join(PATIENCE_S)
        return ended == [True]

    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        assert ready.wait(PATIENCE_S)
        with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
            yield RunningWorlds(url, service, client, stop)
    finally:
        all_ended = stop()
        listener.close()
        assert all_ended
