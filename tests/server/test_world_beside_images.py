"""An image server that shows worlds too."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest
import typer
from http_server import StepSystem, step_config
from patience import PATIENCE_S
from tiny_world import build_tiny_world
from typer.testing import CliRunner
from world_server import QUICK, SCENE, read_parts

from swiftdiff.cli.world_stream import stream
from swiftdiff.server.config import load_server_config
from swiftdiff.server.run import HttpServer, listen
from swiftdiff.server.world_config import StreamConfig
from swiftdiff.server.world_service import WorldService
from swiftdiff.world.engine import WorldEngine


def test_pictures_and_worlds_are_served_side_by_side_and_end_together(store: Path, tmp_path: Path) -> None:
    config = load_server_config(None, port=0, access_log=str(tmp_path / "access.jsonl"))
    engine = WorldEngine(build_tiny_world(), QUICK, profile=False)
    service = WorldService(engine, StreamConfig(fps=30.0, queue_frames=1000))
    listener, ready = listen(config), threading.Event()
    server = HttpServer(config, step_config(store), lambda _: StepSystem(), ready.set, service)
    ended: list[bool] = []
    thread = threading.Thread(target=lambda: ended.append(server.run(listener)))
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        port = listener.getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
            world = client.post("/v1/worlds", json={"prompt": SCENE, "seed": 1}).json()
            with client.stream("GET", f"/{world['frames']}") as response:
                parts = read_parts(response.iter_raw())
                assert next(parts).pixels.shape == (32, 32, 3)
                body = {"prompt": "a red circle", "num_inference_steps": 1}
                assert client.post("/v1/images/generations", json=body).status_code == 200
                assert "served by" not in client.get("/world/").text
                assert client.get("/world", follow_redirects=True).url.path == "/world/"
                assert client.get("/").status_code == client.get("/world/style.css").status_code == 200
                assert client.get("/v1/models").json()["swiftdiff"]["worlds"] is True
                assert client.get("/v1/worlds").json()["images"] is True
                metrics = client.get("/metrics").text
                assert "swiftdiff_worlds 1.0" in metrics
                assert 'swiftdiff_requests_total{status="200"} 1.0' in metrics
                document = client.get("/openapi.json").json()
                assert {"/v1/worlds", "/v1/images/generations"} <= set(document["paths"])
                assert "ErrorResponse" in document["components"]["schemas"]
                server.stop()
                assert list(parts)[-1].error["code"] == "server_draining"
    finally:
        server.stop()
        thread.join(PATIENCE_S)
        listener.close()
    assert ended == [True]
    assert engine.sessions == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nosuchworld"], "unknown world 'nosuchworld'"),
        (["bounce-random", "--fps", "0"], "fps is 0.0, but must be greater than 0"),
        (["bounce-random", "--sessions", "0"], "max_sessions is 0"),
        (["bounce-random", "--memory-budget", "0.001"], "one session's cache takes"),
        (["bounce-random", "--api-key-file", "/nowhere"], "cannot read API key /nowhere"),
        (["bounce-random", "--device", "abacus"], "abacus"),
    ],
)
def test_mistakes_of_the_command_are_told(options: list[str], message: str) -> None:
    app = typer.Typer()
    app.command()(stream)
    done = CliRunner().invoke(app, ["--port", "0", *options])
    assert done.exit_code == 1
    assert message in str(done.exception)
