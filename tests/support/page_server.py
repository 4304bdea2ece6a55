"""A real HTTP server that serves the page and speaks its wire format without a model."""

from __future__ import annotations

import json
import mimetypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fake_image_server import png

import swiftdiff

PAGE = Path(swiftdiff.__file__).parent / "server" / "page"
MODELS: dict[str, Any] = {
    "object": "list",
    "data": [{"id": "shapes", "object": "model", "created": 0, "owned_by": "swiftdiff"}],
    "swiftdiff": {
        "system": "swiftdiff",
        "engine": "swiftdiff",
        "engines": ["swiftdiff", "diffusers"],
        "exactness": "exact",
        "switches": {
            "latent_parallelism": True,
            "controlnet_offload": True,
            "reuse_invariants": True,
            "bal_k": 0,
        },
        "worlds": False,
        "native_size": 128,
        "limits": {"side": 2048, "pixels": 4194304, "images": 8, "steps": 150, "prompt_chars": 4000},
        "defaults": {"num_inference_steps": 20, "guidance_scale": 4.5},
    },
}
ADAPTERS = {
    "loras": [{"id": name, "thumbnail": f"v1/thumbnails/{name}"} for name in ("ink", "neon", "watercolour")],
    "controlnets": [{"id": name} for name in ("depth", "edges", "layout")],
}


def how(body: dict[str, Any]) -> dict[str, Any]:
    """Return what a server tells of a request with one LoRA and one ControlNet; stock takes twice as long."""
    times = 2.0 if (body.get("swiftdiff") or {}).get("engine") == "diffusers" else 1.0
    stages = {"text_encode": 0.02, "lora_wait": 0.03, "lora_patch": 0.01, "denoise": 0.5, "vae_decode": 0.04}
    shown = {name: seconds * times for name, seconds in stages.items()}
    lora = {
        "kind": "lora",
        "id": "neon",
        "source": "store",
        "bytes_loaded": 5,
        "load_s": 0.05,
        "step_patched": 2,
    }
    return {
        "request_id": "img-1",
        "seed": body["seed"],
        "stages": shown,
        "latency_s": 0.01 + sum(shown.values()),
        "queue_wait_s": 0.01,
        "adapters": [lora] if times == 1 else [],
    }


class PageServer:
    """Serves the page; tests look at `bodies` and set `refusal`, `key`, `before_step` and `never_ends`."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.key: str | None = None
        self.before_step: Callable[[], object] = lambda: None
        self.never_ends = False  # unfinished pictures come until the client goes away
        self.busy = 0  # so many thumbnails are refused
        self.broke_off = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path.startswith("/v1/") and outer._wrong_key(self.headers["Authorization"]):
                    self._json(401, {"error": {"message": "a valid API key is needed", "type": "x"}})
                elif path == "/v1/models":
                    self._json(200, MODELS)
                elif path == "/v1/adapters":
                    self._json(200, ADAPTERS)
                elif path.startswith("/v1/thumbnails/") and outer.busy > 0:
                    outer.busy -= 1
                    self._json(503, {"error": {"message": "other requests wait"}})
                elif path.startswith("/v1/thumbnails/"):
                    import base64

                    self._send(200, base64.b64decode(png((40, 90, 160), 64)), "image/png")
                else:
                    file = PAGE / (path.strip("/") or "index.html")
                    if file.is_file():
                        kind = mimetypes.guess_type(file.name)[0] or "text/plain"
                        self._send(200, file.read_bytes(), kind)
                    else:
                        self._json(404, {"error": {"message": "Not Found"}})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.bodies.append(body)
                if outer.refusal is not None:
                    self._json(*outer.refusal)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                try:
                    self._stream(body)
                except OSError:
                    outer.broke_off.set()

            def _stream(self, body: dict[str, Any]) -> None:
                count = body["partial_images"]
                for index in range(count):
                    outer.before_step()
                    self._partial(index, count)
                while outer.never_ends:
                    time.sleep(0.02)
                    self._partial(count - 1, count)
                is_stock = (body.get("swiftdiff") or {}).get("engine") == "diffusers"
                picture = png((200, 40 + is_stock, 40), 128)
                self._event("completed", b64_json=picture, swiftdiff=how(body))

            def _partial(self, index: int, count: int) -> None:
                self._event(
                    "partial_image",
                    b64_json=png((index * 20, 0, 90), 128),
                    partial_image_index=index,
                    swiftdiff={"step": index + 1, "num_steps": count + 1},
                )

            def _event(self, name: str, **fields: Any) -> None:
                kind = f"image_generation.{name}"
                self.wfile.write(f"event: {kind}\ndata: {json.dumps({'type': kind} | fields)}\n\n".encode())
                self.wfile.flush()

            def _json(self, status: int, content: dict[str, Any]) -> None:
                self._send(status, json.dumps(content).encode(), "application/json")

            def _send(self, status: int, data: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def _wrong_key(self, header: str | None) -> bool:
        return self.key is not None and header != f"Bearer {self.key}"

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def page_server() -> Iterator[PageServer]:
    server = PageServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()
