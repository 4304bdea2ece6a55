"""A real HTTP server that speaks OpenAI's Images API without a model: its pictures show the seed."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from patience import PATIENCE_S
from PIL import Image

from swiftdiff.client import target

target._CONNECT_TIMEOUT_S = PATIENCE_S
Answer = tuple[int, dict[str, Any] | bytes]
PLAIN = {"queue_wait_s": 0.001, "latency_s": 0.003, "stages": {"denoise": 0.002}, "adapters": []}


def png(colour: tuple[int, int, int], side: int = 8) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def pictures(body: dict[str, Any], told: dict[str, Any] | None = None) -> Answer:
    """Return as many pictures as were asked for, and what the server tells about itself."""
    data = [{"b64_json": png(((body["seed"] + i) % 256, 0, 0))} for i in range(body["n"])]
    return 200, {"created": 1, "data": data} | ({} if told is None else {"swiftdiff": told})


class FakeImageServer:
    """Answers by ``answer(body)``; ``bodies`` and ``keys`` are what it was sent."""

    def __init__(self, answer: Callable[[dict[str, Any]], Answer], models: Answer) -> None:
        self.answer = answer
        self.models = models
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.most_under_way = 0
        self._under_way = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.keys.append(self.headers["Authorization"])
                self._send(*(outer.models if self.path == "/v1/models" else (404, {"detail": "Not Found"})))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.bodies.append(body)
                    outer.keys.append(self.headers["Authorization"])
                    outer._under_way += 1
                    outer.most_under_way = max(outer.most_under_way, outer._under_way)
                try:
                    answer = outer.answer(body)
                finally:
                    with outer._lock:
                        outer._under_way -= 1
                self._send(*answer)

            def _send(self, status: int, content: dict[str, Any] | bytes) -> None:
                if status == 0:  # hang up
                    self.close_connection = True
                    return
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serving(
    answer: Callable[[dict[str, Any]], Answer] = lambda body: pictures(body, PLAIN),
    models: Answer = (200, {"object": "list", "data": [{"id": "shapes"}]}),
) -> Iterator[FakeImageServer]:
    server = FakeImageServer(answer, models)
    server.start()
    try:
        yield server
    finally:
        server.stop()
