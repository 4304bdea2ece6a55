"""The official openai client works unchanged."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import openai
import pytest
from http_server import Running, StepSystem
from PIL import Image

Start = Callable[..., Running]


def client_of(running: Running, key: str = "unused-key") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0)


def colour(b64_json: str | None) -> Any:
    assert b64_json is not None
    picture = Image.open(io.BytesIO(base64.b64decode(b64_json)))
    assert picture.format == "PNG"
    return picture.getpixel((0, 0))


def test_pictures_come_with_their_seed_and_timings(start: Start) -> None:
    answer = client_of(start()).images.generate(
        prompt="a red circle",
        n=2,
        model="shapes",
        size="auto",
        quality="auto",
        background="opaque",
        output_format="png",
        response_format="b64_json",
        extra_body={"seed": 7, "num_inference_steps": 3},
    )
    assert answer.data is not None
    assert [colour(item.b64_json) for item in answer.data] == [(7, 0, 0)] * 2
    assert answer.size == "8x8"
    how = answer.model_extra["swiftdiff"] if answer.model_extra else {}
    assert how["seed"] == 7
    assert how["latency_s"] == pytest.approx(how["queue_wait_s"] + sum(how["stages"].values()))


def test_a_request_without_a_seed_is_told_the_one_that_was_drawn(start: Start) -> None:
    answer = client_of(start()).images.generate(prompt="a red circle")
    assert answer.data is not None
    assert answer.model_extra is not None
    assert colour(answer.data[0].b64_json)[0] == answer.model_extra["swiftdiff"]["seed"] % 256


def test_a_stream_shows_unfinished_pictures_and_then_the_finished_one(start: Start) -> None:
    stream = client_of(start()).images.generate(
        prompt="a red circle", stream=True, partial_images=3, extra_body={"num_inference_steps": 20}
    )
    events = list(stream)
    assert [event.type for event in events] == ["image_generation.partial_image"] * 3 + [
        "image_generation.completed"
    ]
    assert [event.partial_image_index for event in events[:3]] == [0, 1, 2]  # type: ignore[union-attr]
    assert [event.swiftdiff["step"] for event in events[:3]] == [5, 10, 15]  # type: ignore[union-attr]
    assert events[-1].usage.total_tokens == 0  # type: ignore[union-attr]


def test_a_stream_that_fails_midway_raises_in_the_client(start: Start, system: StepSystem) -> None:
    running = start()
    system.free_steps = 2
    system.go.clear()
    stream = client_of(running).images.generate(
        prompt="a red circle", stream=True, partial_images=1, extra_body={"num_inference_steps": 4}
    )
    iterator = iter(stream)
    assert next(iterator).type == "image_generation.partial_image"
    running.server.abandon_all()
    system.go.set()
    with pytest.raises(openai.APIError):
        list(iterator)


def test_models_are_listed_and_found(start: Start) -> None:
    client = client_of(start())
    assert [model.id for model in client.models.list()] == ["shapes"]
    assert client.models.retrieve("shapes").owned_by == "swiftdiff"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("dall-e-3")


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"model": "dall-e-3"}, openai.NotFoundError, "model"),
        ({"size": "7x7"}, openai.BadRequestError, "size"),
        ({"background": "transparent"}, openai.BadRequestError, "background"),
        ({"n": 9}, openai.BadRequestError, "n"),
        ({"response_format": "url"}, openai.BadRequestError, "response_format"),
        ({"extra_body": {"loras": [{"id": "silver"}]}}, openai.NotFoundError, "loras[0].id"),
        ({"extra_body": {"sede": 1}}, openai.BadRequestError, "sede"),
    ],
)
def test_refusals_are_the_clients_own_errors(
    start: Start, fields: dict[str, Any], error: type[openai.APIStatusError], param: str | None
) -> None:
    with pytest.raises(error) as raised:
        client_of(start()).images.generate(prompt="a red circle", **fields)
    assert raised.value.param == param
    assert raised.value.request_id is not None


def test_a_key_is_asked_for_everywhere_but_at_the_page_and_the_probes(start: Start) -> None:
    running = start(api_key="a-long-secret")
    assert client_of(running, "a-long-secret").images.generate(prompt="a red circle").data
    with pytest.raises(openai.AuthenticationError):
        client_of(running, "a-long-secreT").images.generate(prompt="a red circle")
    for wrong in (b"Bearer a-long-secre", b"Bearer \xe9\xff", b"Bearer", b"a-long-secret", b""):
        answer = running.client.get("/v1/models", headers={"Authorization": wrong})
        assert answer.status_code == 401, wrong
    for path in ("/v1/models", "/v1/adapters", "/metrics"):
        assert running.client.get(path).status_code == 401, path
    for path in ("/health", "/ready", "/openapi.json"):
        assert running.client.get(path).status_code == 200, path
    assert "a-long-secret" not in running.log.read_text()
