from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swiftdiff.errors import StorageError, TraceError
from swiftdiff.request import ControlNetUse
from swiftdiff.scenes.captions import parse_caption
from swiftdiff.scenes.control import CONTROL_KINDS
from swiftdiff.trace.content import ContentPool, control_image, trace_stem


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_every_prompt_is_a_canonical_caption_and_they_have_one_to_three_objects(seed: int) -> None:
    scenes = [parse_caption(ContentPool(seed).prompt(index)) for index in range(64)]
    assert all(scene is not None for scene in scenes)
    assert {len(scene.objects) for scene in scenes if scene} == {1, 2, 3}


def test_a_seed_gives_the_same_prompts_in_whatever_order_they_are_asked_for() -> None:
    first, second = ContentPool(7, size=8), ContentPool(7, size=8)
    forwards = [first.prompt(index) for index in range(8)]
    assert forwards == [second.prompt(index) for index in reversed(range(8))][::-1]
    assert forwards != [ContentPool(8, size=8).prompt(index) for index in range(8)]
    assert first.prompt(8) == forwards[0]


def test_only_the_pictures_that_were_asked_for_are_drawn_and_each_shows_its_prompt(tmp_path: Path) -> None:
    pool = ContentPool(3, side=64, size=4, stem="day")
    paths = {pool.control_image(index, kind) for index in (0, 4, 2) for kind in CONTROL_KINDS}
    assert pool.write_images(tmp_path) == len(paths) == 6
    assert {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.png")} == paths
    with Image.open(tmp_path / "day-controls" / "02-depth.png") as picture:
        assert picture.size == (64, 64)
        assert np.array_equal(np.asarray(picture), np.asarray(control_image("depth", pool.prompt(2), 64)))


def test_an_unknown_kind_of_control_image_is_refused() -> None:
    with pytest.raises(TraceError, match="kind is 'pose', but must be one of edges, depth, layout"):
        ContentPool(0).control_image(0, "pose")


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "trace-controls").write_text("in the way")
    pool = ContentPool(0)
    pool.control_image(0, "edges")
    with pytest.raises(StorageError, match="cannot write control images to"):
        pool.write_images(tmp_path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "c:x\\y.jsonl", "with space.jsonl"])
def test_any_name_of_a_trace_gives_a_valid_path_of_its_control_images(name: str) -> None:
    pool = ContentPool(0, stem=trace_stem(Path(name)))
    assert ControlNetUse(id="edges", image=pool.control_image(0, "edges")).image.endswith(
        "-controls/00-edges.png"
    )
