from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from swiftdiff.errors import RequestError
from swiftdiff.request import ControlNetUse, ImageRequest, LoraUse, RequestRecord, validate_servable


def request(**changes: Any) -> ImageRequest:
    fields: dict[str, Any] = {"request_id": "a", "timestamp": 0.0, "prompt": "a large red circle"}
    return ImageRequest(**(fields | changes))


def test_a_plain_request_is_servable() -> None:
    validate_servable(request())


def test_a_request_with_everything_is_servable() -> None:
    validate_servable(
        request(
            negative_prompt="",
            width=160,
            height=128,
            num_images=3,
            controlnets=(ControlNetUse(id="edges", image="controls/a.png", start=0.2, end=0.9),),
            loras=(LoraUse(id="neon", scale=-0.5), LoraUse(id="night")),
        )
    )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_inference_steps": 1001}, "num_inference_steps is 1001"),
        ({"num_images": 0}, "num_images is 0"),
        ({"num_images": 1000}, "num_images is 1000"),
        ({"width": 100}, "width is 100"),
        ({"height": 0}, "height is 0"),
        ({"height": -8}, "height is -8"),
        ({"width": 8_000_000}, "width is 8000000"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"guidance_scale": -1.0}, r"guidance_scale is -1\.0"),
        ({"controlnets": (ControlNetUse(id="e", image="a.png", start=-0.1),)}, r"controlnets\[0\]\.start"),
        ({"controlnets": (ControlNetUse(id="e", image="a.png", end=1.1),)}, r"controlnets\[0\]\.end"),
        (
            {"controlnets": (ControlNetUse(id="e", image="a.png", start=0.5, end=0.5),)},
            r"above start \(0\.5\)",
        ),
        ({"loras": (LoraUse(id="neon"), LoraUse(id="neon"))}, r"loras is \['neon'\]"),
    ],
)
def test_what_no_system_could_serve_loads_but_fails_alone_and_names_the_field(
    changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(RequestError, match=rf"^request a: .*{field}"):
        validate_servable(request(**changes))


@pytest.mark.parametrize("request_id", ["", "a/b", "..\\a", "a b", "é", "x" * 129, "a\n"])
def test_a_request_id_that_cannot_name_a_file_is_refused(request_id: str) -> None:
    with pytest.raises(ValidationError):
        request(request_id=request_id)


@pytest.mark.parametrize(
    "image", ["", "/etc/a.png", "../a.png", "a/../../b.png", "C:/a.png", "a\\b.png", "a\0.png"]
)
def test_a_control_image_outside_the_traces_folder_is_refused(image: str) -> None:
    with pytest.raises(ValidationError):
        ControlNetUse(id="edges", image=image)


def test_requests_and_records_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        request().seed = 3  # type: ignore[misc]


def test_a_record_survives_json_unchanged() -> None:
    record = RequestRecord(
        request_id="a",
        status="ok",
        scheduled_at_s=1.0,
        started_at_s=1.5,
        finished_at_s=4.0,
        queue_wait_s=0.5,
        latency_s=3.0,
        stages={"denoise": 2.25, "other": 0.25},
        num_images=1,
        num_inference_steps=20,
        width=128,
        height=128,
        controlnets=("edges",),
        images=("images/a-0.png",),
    )
    assert RequestRecord.model_validate_json(record.model_dump_json()) == record
