"""Measures what HTTP adds: the same requests over HTTP and in the process, in turns, on an idle machine.

Usage: ``python -m swiftdiff.server.overhead [--config CONFIG.toml] [--pairs N] [--steps N]``. Both arms end
with a PNG, at the client or in a file as a replay saves it, and before the restore. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import numpy as np

from swiftdiff.config import ServingConfig, load_config
from swiftdiff.engine.session import resolve_paths
from swiftdiff.files import PNG_COMPRESS_LEVEL
from swiftdiff.request import ImageRequest
from swiftdiff.resources import path as resource
from swiftdiff.server.config import ServerConfig
from swiftdiff.server.run import run_server
from swiftdiff.systems import ServingSystem, build_system

PROMPT = "a large red circle on a sand background"
WARM_UPS = 4


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=resource("configs/swiftdiff.toml"))
    parser.add_argument("--pairs", type=int, default=100, help="rounded up to an even number")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    pairs = options.pairs + options.pairs % 2
    system = resolve_paths(load_config(options.config), options.config.resolve().parent)
    over_http, in_process = measure(system, pairs, options.steps)
    # Going second costs an arm something, so two pairs with the arms in either order count as one.
    differences_ms = ((over_http - in_process) * 1000).reshape(-1, 2).mean(axis=1)
    low, high = _interval_of_median(differences_ms)
    result = {
        "pairs": pairs,
        "num_inference_steps": options.steps,
        "median_http_ms": round(float(np.median(over_http)) * 1000, 3),
        "median_in_process_ms": round(float(np.median(in_process)) * 1000, 3),
        "median_overhead_ms": round(float(np.median(differences_ms)), 3),
        "median_overhead_95_percent_ms": [round(low, 3), round(high, 3)],
    }
    print(json.dumps(result))


def measure(system: ServingConfig, pairs: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return seconds over HTTP and in the process, an entry a pair.

    Args:
        system: What serves in both; the server is a process of its own, with an access log on the disk.
        pairs: How many; the arms take turns in going first.
        steps: Denoising steps of each request.
    """
    context = multiprocessing.get_context("spawn")
    parent, child = context.Pipe()
    with tempfile.TemporaryDirectory(prefix="swiftdiff-overhead-") as name:
        folder = Path(name)
        server = context.Process(target=_serve, args=(system, folder, child))
        server.start()
        own = build_system(system)
        try:
            own.warm_up()
            with httpx.Client(base_url=parent.recv(), timeout=120) as client:
                arms = (_over_http(client, steps), _in_process(own, folder, steps))
                seconds = np.array([_pair(index, arms, own.finish) for index in range(-WARM_UPS, pairs)])[
                    WARM_UPS:
                ]
        finally:
            own.close()
            server.terminate()
            server.join()
    return seconds[:, 0], seconds[:, 1]


def _serve(system: ServingConfig, folder: Path, announce: Connection) -> None:
    config = ServerConfig(port=0, access_log=str(folder / "access.jsonl"))
    run_server(config, system, announce=announce.send)


def _pair(
    seed: int, arms: tuple[Callable[[int], None], Callable[[int], None]], restore: Callable[[], None]
) -> list[float]:
    seconds = [0.0, 0.0]
    for arm in (0, 1) if seed % 2 else (1, 0):
        began = time.perf_counter()
        arms[arm](abs(seed))
        seconds[arm] = time.perf_counter() - began
        restore()
        time.sleep(0.05)  # the server's restore, and threads that still spin
    return seconds


def _over_http(client: httpx.Client, steps: int) -> Callable[[int], None]:
    def ask(seed: int) -> None:
        body = {"prompt": PROMPT, "seed": seed, "num_inference_steps": steps}
        client.post("/v1/images/generations", json=body).raise_for_status()

    return ask


def _in_process(system: ServingSystem, folder: Path, steps: int) -> Callable[[int], None]:
    def ask(seed: int) -> None:
        request = ImageRequest(
            request_id=f"r{seed}", timestamp=0, prompt=PROMPT, seed=seed, num_inference_steps=steps
        )
        served = system.serve(request, folder)
        pictures = served.images() if callable(served.images) else served.images
        pictures[0].save(folder / "picture.png", compress_level=PNG_COMPRESS_LEVEL)

    return ask


def _interval_of_median(values: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (draws, len(values))), axis=1)
    return float(np.quantile(medians, 0.025)), float(np.quantile(medians, 0.975))


if __name__ == "__main__":
    main()
