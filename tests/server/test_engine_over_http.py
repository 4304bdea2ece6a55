"""The real engine behind HTTP: stock's pictures, and a base model that nothing stays in."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from http_server import ADDRESS, Running, running
from patience import PATIENCE_S, until
from PIL import Image
from serving import LORAS, engine_config, largest_difference, request, serve, stock, weights_of
from soak import soak

from swiftdiff.adapters.store import AdapterStore
from swiftdiff.request import ControlNetUse, LoraUse
from swiftdiff.systems import build_system

SOAK_REQUESTS = int(os.environ.get("SWIFTDIFF_SOAK_REQUESTS", "60"))
CORRUPT = "corrupt"


class Engine:
    """A server around the engine, whose system a test can look into."""

    def __init__(self, running: Running, systems: list[Any], family: Path) -> None:
        self.running = running
        self.system = systems[0]
        self.family = family


@pytest.fixture
def engine_server(tiny_family: Path, tmp_path: Path) -> Iterator[Engine]:
    family = tmp_path / "family"
    shutil.copytree(tiny_family, family)
    (family / "loras" / f"{CORRUPT}.safetensors").write_bytes(b"\xff" * 5000)
    config = engine_config(family, latent_parallelism=True, prefetch=True)
    systems: list[Any] = []

    def build(config: Any) -> Any:
        systems.append(build_system(config))
        return systems[0]

    with running(tmp_path, config, build, queue_size=8) as server:
        yield Engine(server, systems, family)


def test_a_client_that_leaves_while_denoising_leaves_the_base_model_bit_identical(
    engine_server: Engine,
) -> None:
    running = engine_server.running
    pristine = weights_of(engine_server.system)
    body = {
        "prompt": "a red cat",
        "loras": [{"id": name} for name in LORAS],
        "num_inference_steps": 9,
        "stream": True,
        "partial_images": 3,
    }
    with running.held_before(5) as held:
        with running.client.stream("POST", ADDRESS, json=body) as answer:
            lines = answer.iter_lines()  # to drop it is to leave
            next(line for line in lines if line.startswith("data:"))
            until(held.is_set)  # it is being denoised, with its LoRAs in
            assert not all(map(torch.equal, pristine.values(), weights_of(engine_server.system).values()))
        until(lambda: [record["http_status"] for record in running.records()] == [499])
    until(lambda: running.server.worker.in_service == ())
    until(lambda: all(map(torch.equal, pristine.values(), weights_of(engine_server.system).values())))
    assert len(running.records()) == 1


def test_a_client_that_leaves_while_its_lora_loads_frees_the_place(
    tiny_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    monkeypatch.setattr(AdapterStore, "fetch_lora", lambda store, adapter_id: go.wait(PATIENCE_S))
    with running(tmp_path, engine_config(tiny_family), build_system) as server:
        with server.left(loras=[{"id": "gold"}]):
            until(lambda: server.server.worker.in_service != ())
        until(lambda: server.records() != [] and server.server.worker.in_service == ())
        assert server.post("a red cat", num_inference_steps=2).status_code == 200
        go.set()


def test_stock_can_be_asked_for_beside_the_engine(engine_server: Engine) -> None:
    pictures = []
    for name in ("swiftdiff", "diffusers", "swiftdiff"):
        answer = engine_server.running.post(
            "a red cat", seed=5, num_inference_steps=2, loras=[{"id": "neon"}], swiftdiff={"engine": name}
        )
        assert answer.status_code == 200, answer.text
        pictures.append(
            np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))))
        )
    assert largest_difference(pictures[:1], pictures[1:2]) <= 1
    assert np.array_equal(pictures[0], pictures[2])


def test_a_soak_leaks_nothing_loses_nothing_and_draws_nothing_wrong(
    engine_server: Engine, tmp_path: Path
) -> None:
    running = engine_server.running
    pristine = weights_of(engine_server.system)
    began_s = running.server.clock.now()
    for seed in range(5):
        running.post("a red cat", num_inference_steps=2, seed=seed, loras=[{"id": "neon"}])
    capacity = 5 / (running.server.clock.now() - began_s)

    async def flood() -> Any:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=running.url, timeout=600, limits=limits) as client:
            return await soak(
                client,
                SOAK_REQUESTS,
                2 * capacity,
                loras=LORAS,
                controlnets=("edges", "depth"),
                corrupt=CORRUPT,
            )

    result = asyncio.run(flood())
    assert result.malformed == []
    assert result.statuses[200] > 0
    until(lambda: running.server.worker.in_service == () and len(running.server.room) == 0)
    until(lambda: not list(Path(running.server._images.name).iterdir()))
    until(lambda: all(map(torch.equal, pristine.values(), weights_of(engine_server.system).values())))
    records = {record["request_id"]: record["http_status"] for record in running.records()}
    assert {name: records.get(name) for name in result.answered} == result.answered
    assert len(result.answered) + result.statuses[0] == SOAK_REQUESTS
    sample = [picture for each in result.samples.values() for picture in each[:: max(1, len(each) // 6)]]
    _check_pictures(engine_server.family, sample, tmp_path)
    if SOAK_REQUESTS >= 1000:
        assert result.samples[True]  # batches of a model as small as this are much faster
        early, late = result.memory[len(result.memory) // 4], result.memory[-1]
        assert late < early * 1.05 + 20e6, result.memory
    sizes = Counter(line["batch_size"] for line in running.records() if line["http_status"] == 200)
    print(dict(result.statuses), "served by batch size:", dict(sorted(sizes.items())))
    print([f"{each / 1e6:.0f} MB" for each in result.memory[::10]])


def _check_pictures(family: Path, sample: list[Any], folder: Path) -> None:
    """Compare pictures with those that stock draws of the same bodies."""
    assert sample
    with stock(family) as baseline:
        for body, picture in sample:
            nets = []
            for index, use in enumerate(body.get("controlnets", ())):
                (folder / f"{index}.png").write_bytes(base64.b64decode(use["image"]))
                nets.append(ControlNetUse(id=use["id"], image=f"{index}.png"))
            asked = request(
                prompt=body["prompt"],
                seed=body["seed"],
                num_inference_steps=body["num_inference_steps"],
                loras=tuple(LoraUse(**use) for use in body["loras"]),
                controlnets=tuple(nets),
            )
            assert largest_difference([picture], serve(baseline, asked, folder)) <= 1, body
