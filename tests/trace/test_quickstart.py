from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swiftdiff.request import ImageRequest, validate_servable
from swiftdiff.resources import path
from swiftdiff.scenes.captions import parse_caption
from swiftdiff.scenes.control import CONTROL_KINDS
from swiftdiff.scenes.styles import STYLES
from swiftdiff.trace import read_trace, scan_trace
from swiftdiff.trace.content import control_image
from swiftdiff.trace.quickstart import quickstart_requests, write_quickstart

REQUESTS = quickstart_requests()


def test_the_shipped_trace_is_the_one_that_the_code_makes() -> None:
    assert list(read_trace(path("quickstart.jsonl"))) == REQUESTS


def test_it_shows_every_number_of_adapters_every_style_and_several_images() -> None:
    assert len(REQUESTS) == 16
    assert {len(request.controlnets) for request in REQUESTS} == {0, 1, 2, 3}
    assert {len(request.loras) for request in REQUESTS} == {0, 1, 2}
    assert {use.id for request in REQUESTS for use in request.loras} == set(STYLES)
    assert {use.id for request in REQUESTS for use in request.controlnets} == set(CONTROL_KINDS)
    assert max(request.num_images for request in REQUESTS) == 2
    assert any(request.negative_prompt for request in REQUESTS)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.request_id)
def test_each_request_is_servable_and_its_control_images_show_its_prompt(request_: ImageRequest) -> None:
    validate_servable(request_)
    assert parse_caption(request_.prompt) is not None
    for use in request_.controlnets:
        with Image.open(path(use.image)) as shipped:
            drawn = np.asarray(control_image(use.id, request_.prompt))
            assert shipped.mode == "RGB"
            # An edge may move by a pixel between versions of scipy; a wrong scene differs by far more.
            assert np.mean(np.asarray(shipped) != drawn) < 0.01


def test_no_control_image_ships_that_no_request_uses() -> None:
    used = {use.image for request in REQUESTS for use in request.controlnets}
    assert used == {f"controls/{file.name}" for file in path("controls").iterdir()}


def test_writing_it_again_gives_a_valid_trace_with_its_control_images(tmp_path: Path) -> None:
    assert write_quickstart(tmp_path) == 16
    info = scan_trace(tmp_path / "quickstart.jsonl")
    assert info.num_images == 17
    assert (tmp_path / "controls" / "03-edges.png").is_file()
