"""Bodies of any kind: each is served or refused with an error that OpenAI's clients understand."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_server import ADDRESS, Running, StepSystem, running, step_config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("bodies")
    (folder / "store" / "loras").mkdir(parents=True)
    (folder / "store" / "loras" / "gold.safetensors").touch()
    (folder / "store" / "controlnets" / "edges").mkdir(parents=True)
    limits = {"side": 512, "pixels": 256 * 512, "steps": 10, "prompt_chars": 100, "control_pixels": 4096}
    with running(
        folder,
        step_config(folder / "store"),
        lambda config: StepSystem(),
        limits=limits | {"body_bytes": 200_000, "loras": 2, "controlnets": 1},
        defaults={"num_inference_steps": 2},
    ) as server:
        yield server


def picture(kind: str = "PNG", size: tuple[int, int] = (8, 8)) -> str:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, format=kind)
    return base64.b64encode(file.getvalue()).decode()


def png_header(width: int, height: int) -> bytes:
    """Return a PNG file that claims to be large."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    return (
        b"\x89PNG\r\n\x1a\n\0\0\0\r"
        + header
        + zlib.crc32(header).to_bytes(4, "big")
        + b"\0\0\0\0IDAT"
        + zlib.crc32(b"IDAT").to_bytes(4, "big")
    )


def check_refusal(answer: Any) -> dict[str, Any]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["code"]
    assert "Traceback" not in error["message"]
    assert str(Path.home()) not in error["message"]
    assert "/tmp" not in error["message"]
    return error  # type: ignore[no-any-return]


def control(image: str, **fields: Any) -> dict[str, Any]:
    return {"controlnets": [{"id": "edges", "image": image} | fields]}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_control_images_of_usual_kinds_are_taken(server: Running, kind: str) -> None:
    assert server.post(**control(picture(kind))).status_code == 200
    assert server.post(**control("data:image/png;base64," + picture(kind))).status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 101}, "prompt"),
        ({"negative_prompt": "x" * 101}, "negative_prompt"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"n": True}, "n"),
        ({"n": "1"}, "n"),
        ({"size": "512x512"}, "size"),
        ({"size": "520x8"}, "size"),
        ({"size": "-8x8"}, "size"),
        ({"size": "9x8"}, "size"),
        ({"size": "9999999999999x8"}, "size"),
        ({"num_inference_steps": 11}, "num_inference_steps"),
        ({"guidance_scale": 1e9}, "guidance_scale"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"slo_ms": 0}, "slo_ms"),
        ({"loras": [{"id": "gold"}] * 3}, "loras"),
        ({"loras": [{"id": "gold", "scale": 1e30}]}, "loras[0].scale"),
        ({"loras": [{"id": "gold", "path": "x"}]}, "loras[0].path"),
        ({"controlnets": [{"id": "edges"}]}, "controlnets[0].image"),
        (control("no base64!"), "controlnets[0].image"),
        (control(base64.b64encode(b"text").decode()), "controlnets[0].image"),
        (control(base64.b64encode(png_header(60_000, 60_000)).decode()), "controlnets[0].image"),
        (control(picture("PNG", (65, 64))), "controlnets[0].image"),
        (control(picture("GIF")), "controlnets[0].image"),
        (control(picture()[:-40]), "controlnets[0].image"),
        ({"stream": True, "n": 2}, "n"),
        ({"partial_images": 2}, "partial_images"),
        ({"swiftdiff": {"engine": "katz"}}, "swiftdiff.engine"),
        ({"swiftdiff": {"switches": {"graph_replay": False}}}, "swiftdiff.switches.graph_replay"),
        ({"swiftdiff": {"engine": "diffusers", "switches": {"bal_k": 0}}}, "swiftdiff.switches"),
    ],
)
def test_a_wrong_field_is_named(server: Running, fields: dict[str, Any], param: str) -> None:
    answer = server.post(**fields)
    assert answer.status_code == 400
    assert check_refusal(answer)["param"] == param


@pytest.mark.parametrize("fields", [{"loras": [{"id": "gold"}] * 2}, control(picture(), start=0.5, end=0.5)])
def test_what_no_system_could_serve_is_refused_before_it_waits(
    server: Running, fields: dict[str, Any]
) -> None:
    answer = server.post(**fields)
    assert answer.status_code == 400
    assert "img-" not in check_refusal(answer)["message"]


@pytest.mark.parametrize(
    "adapter_id",
    ["silver", "../../etc/passwd", "gold.safetensors", "/etc/passwd", "gold/../gold", "http://x", "."],
)
def test_adapters_are_names_of_the_store_and_never_paths(server: Running, adapter_id: str) -> None:
    for fields in (
        {"loras": [{"id": adapter_id}]},
        {"controlnets": [{"id": adapter_id, "image": picture()}]},
    ):
        answer = server.post(**fields)
        assert answer.status_code == 404
        error = check_refusal(answer)
        assert error["code"] == "adapter_not_found"
        assert repr(adapter_id) in error["message"]


def test_a_body_that_is_too_large_is_refused_declared_or_not(server: Running) -> None:
    declared = server.post("x" * 200_001)
    assert declared.status_code == 413
    check_refusal(declared)

    def chunks() -> Iterator[bytes]:
        for _ in range(30):
            yield b"x" * 10_000

    answer = server.client.post(ADDRESS, content=chunks(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_a_body_that_another_origins_page_could_send_unasked_is_refused(server: Running) -> None:
    body = json.dumps({"prompt": "a red circle"})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = server.client.post(ADDRESS, content=body, headers={"Content-Type": kind})
        assert answer.status_code == 415
    assert server.client.post(ADDRESS, content=body).status_code == 415


def test_a_name_that_only_resolves_to_this_machine_is_not_served(server: Running) -> None:
    for host, status in (("evil.example", 421), ("localhost:1", 200), ("[::1]:80", 200), ("127.0.0.1", 200)):
        assert server.client.get("/v1/models", headers={"Host": host}).status_code == status, host


def test_no_other_origin_may_read_answers_unless_it_is_named(server: Running) -> None:
    answer = server.client.get("/v1/models", headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_a_body_that_is_no_object_is_called_a_body(server: Running) -> None:
    answer = server.client.post("/v1/images/generations", json=[1])
    assert check_refusal(answer)["message"] == "the body is [1], but must be an object with named fields"


def test_unknown_paths_and_methods_are_refused_in_the_same_form(server: Running) -> None:
    assert server.client.get("/v1/nothing").status_code == 404
    check_refusal(server.client.get("/v1/nothing"))
    answer = server.client.get(ADDRESS)
    assert answer.status_code == 405
    check_refusal(answer)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
PLAUSIBLE = st.fixed_dictionaries(
    {"prompt": st.text(max_size=40) | SCALARS},
    optional={
        "n": st.integers(0, 4) | SCALARS,
        "size": st.sampled_from(["auto", "64x64", "8x8", "7x7", "x", "64x64x64", "0x0"]) | SCALARS,
        "seed": st.integers(0, 2**64) | SCALARS,
        "stream": st.booleans() | SCALARS,
        "partial_images": st.integers(-1, 5) | SCALARS,
        "num_inference_steps": st.integers(0, 12) | SCALARS,
        "guidance_scale": st.floats(allow_nan=False, allow_infinity=False) | SCALARS,
        "negative_prompt": ANYTHING,
        "loras": st.lists(
            st.fixed_dictionaries({"id": st.sampled_from(["gold", "x"]) | ANYTHING}), max_size=3
        )
        | ANYTHING,
        "controlnets": st.lists(
            st.fixed_dictionaries({"id": st.just("edges"), "image": st.just(picture()) | st.text()}),
            max_size=2,
        )
        | ANYTHING,
        "swiftdiff": ANYTHING,
        "slo_ms": st.floats() | SCALARS,
    },
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(PLAUSIBLE | ANYTHING)
def test_any_json_is_served_or_refused(server: Running, body: Any) -> None:
    content = json.dumps(body)
    answer = server.client.post(ADDRESS, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 404, 504), answer.text
    if answer.status_code != 200:
        check_refusal(answer)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(server: Running, body: bytes) -> None:
    answer = server.client.post(ADDRESS, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    check_refusal(answer)
