"""Floods a server as the world does: random adapters, disconnects, bad bodies, deadlines, a corrupt adapter.

Usage: ``python -m pytest tests/server/test_soak.py`` with ``SWIFTDIFF_SOAK_REQUESTS`` in the environment.
"""

from __future__ import annotations

import asyncio
import base64
import io
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from PIL import Image

ADDRESS = "/v1/images/generations"


@dataclass
class Soak:
    """What came of it.

    Attributes:
        statuses: How often each HTTP status was answered; 0 is a client that left.
        answered: Status by request id, of all that were answered.
        malformed: Answers that are neither pictures nor an error as it should be.
        samples: Bodies and their pictures, to compare with stock, by whether they were drawn in a batch.
        memory: Resident bytes of the server over time.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    answered: dict[str, int] = field(default_factory=dict)
    malformed: list[str] = field(default_factory=list)
    samples: dict[bool, list[tuple[dict[str, Any], np.ndarray[Any, Any]]]] = field(
        default_factory=lambda: {False: [], True: []}
    )
    memory: list[int] = field(default_factory=list)


def control_image(draw: random.Random) -> str:
    """Return a small picture of noise as base64."""
    pixels = np.frombuffer(draw.randbytes(64 * 64 * 3), dtype=np.uint8).reshape(64, 64, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def random_body(draw: random.Random, loras: tuple[str, ...], controlnets: tuple[str, ...]) -> dict[str, Any]:
    """Return a small request that can be served."""
    picked = draw.sample(loras, draw.choice((0, 0, 1, 1, 2)))
    body: dict[str, Any] = {
        "prompt": draw.choice(("a red cat", "two green dogs", "x")),
        "seed": draw.randrange(1000),
        "n": draw.choice((1, 1, 1, 2)),
        "num_inference_steps": 2,
        "loras": [{"id": name, "scale": draw.choice((0.3, 1.0))} for name in picked],
    }
    if draw.random() < 0.3:
        body["controlnets"] = [{"id": draw.choice(controlnets), "image": control_image(draw)}]
    return body


def spoilt(draw: random.Random, body: dict[str, Any]) -> Any:
    """Return a request that must be refused."""
    return draw.choice(
        [
            body | {"n": 1000},
            body | {"size": "13x13"},
            body | {"prompt": 5},
            body | {"loras": [{"id": "../../etc/passwd"}]},
            body | {"controlnets": [{"id": "edges", "image": "bm8="}]},
            [body],
            "text",
        ]
    )


async def soak(
    client: httpx.AsyncClient,
    count: int,
    rate: float,
    *,
    loras: tuple[str, ...],
    controlnets: tuple[str, ...],
    corrupt: str,
    seed: int = 0,
) -> Soak:
    """Send ``count`` requests, ``rate`` a second, whether or not the server keeps up."""
    draw = random.Random(seed)
    result = Soak()
    began = asyncio.get_running_loop().time()
    # A group forgets tasks that are done: a list of them would look like a leak of the server's.
    async with asyncio.TaskGroup() as tasks:
        for index in range(count):
            body = random_body(draw, loras, controlnets)
            kinds = ("plain", "bad", "leave", "corrupt", "late", "stream")
            kind = draw.choices(kinds, (60, 12, 12, 5, 5, 6))[0]
            pause_s = draw.uniform(0.0, 4.0 / rate)
            sent = _prepared(kind, body, draw, corrupt)
            tasks.create_task(_one(client, result, kind, sent, pause_s))
            if index % 20 == 0:
                result.memory.append(await _resident_bytes(client))
            await asyncio.sleep(max(0.0, began + index / rate - asyncio.get_running_loop().time()))
    return result


async def _resident_bytes(client: httpx.AsyncClient) -> int:
    text = (await client.get("/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith("process_resident_memory_bytes")]
    return int(float(line.split()[1]))


def _prepared(kind: str, body: dict[str, Any], draw: random.Random, corrupt: str) -> Any:
    if kind == "bad":
        return spoilt(draw, body)
    own: dict[str, dict[str, Any]] = {
        "corrupt": {"loras": [{"id": corrupt}]},
        "late": {"slo_ms": 1.0},
        "stream": {"stream": True, "partial_images": 1, "n": 1},
    }
    return body | own.get(kind, {})


async def _one(client: httpx.AsyncClient, result: Soak, kind: str, sent: Any, pause_s: float) -> None:
    asking = asyncio.create_task(client.post(ADDRESS, json=sent))
    if kind == "leave":
        await asyncio.wait({asking}, timeout=pause_s)
        if not asking.done():
            asking.cancel()
            await asyncio.wait({asking})
            result.statuses[0] += 1
            return
    answer = await asking
    result.statuses[answer.status_code] += 1
    result.answered[answer.headers["X-Request-Id"]] = answer.status_code
    _check(result, kind, sent, answer)


def _check(result: Soak, kind: str, body: Any, answer: httpx.Response) -> None:
    expected = {"bad": {400, 404, 429}, "corrupt": {422, 429}, "late": {504, 429}}.get(kind, {200, 429})
    if answer.status_code not in expected:
        result.malformed.append(f"{kind}: {answer.status_code} {answer.text[:200]}")
    elif answer.status_code != 200:
        error = answer.json()["error"]
        if set(error) != {"message", "type", "param", "code"}:
            result.malformed.append(answer.text[:200])
        if answer.status_code == 429 and int(answer.headers["Retry-After"]) < 1:
            result.malformed.append("429 without Retry-After")
    elif kind == "stream":
        if "image_generation.completed" not in answer.text:
            result.malformed.append(answer.text[-200:])
    else:
        content = answer.json()
        sample = result.samples[content["swiftdiff"]["batch_size"] > 1]
        if len(sample) < 30:
            file = io.BytesIO(base64.b64decode(content["data"][0]["b64_json"]))
            sample.append((body, np.asarray(Image.open(file))))
