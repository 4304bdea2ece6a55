from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from http_server import Running, StepSystem
from patience import until
from PIL import Image

PATH = "/v1/adapters/loras/{}/thumbnail"


def test_every_lora_that_is_listed_has_a_thumbnail(start: Callable[..., Running], system: StepSystem) -> None:
    running = start()
    loras = running.client.get("/v1/adapters").json()["loras"]
    assert [lora["id"] for lora in loras] == ["gold", "neon"]
    for lora in loras:
        response = running.client.get(lora["thumbnail"])
        assert response.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(response.content)).size == (8, 8)
    assert [request.loras[0].id for request in system.served] == ["gold", "neon"]


def test_a_thumbnail_is_drawn_once_however_many_ask(
    start: Callable[..., Running], system: StepSystem
) -> None:
    running = start()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: running.client.get(PATH.format("neon")), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(system.served) == 1
    assert len(running.records()) == 1


def test_thumbnails_stand_back_behind_requests(start: Callable[..., Running], system: StepSystem) -> None:
    running = start()
    system.go.clear()
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(running.post) for _ in range(2)]
        until(lambda: system.began.is_set() and len(running.server.room) == 1)
        response = running.client.get(PATH.format("neon"))
        assert (response.status_code, response.json()["error"]["code"]) == (503, "server_busy")
        system.go.set()
        assert [each.result().status_code for each in asked] == [200, 200]
    assert running.client.get(PATH.format("neon")).status_code == 200


def test_what_is_no_lora_has_none(start: Callable[..., Running]) -> None:
    running = start()
    for name in ("none", "edges", "..%2f..%2fetc%2fpasswd", "%00"):
        response = running.client.get(PATH.format(name))
        assert response.status_code == 404, name
        assert response.json()["error"]["message"]
