from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from swiftdiff.errors import ConfigError, RequestError, StorageError
from swiftdiff.world import clip
from swiftdiff.world.clip import generate
from swiftdiff.world.clip_folder import ClipFolder, ClipRequest, Steer, parse_request, parse_steer
from swiftdiff.world.config import CacheConfig, WorldConfig
from swiftdiff.world.config_file import load_world_config
from swiftdiff.world.loading import WorldModel
from swiftdiff.world.session import Block

SCENE = "red ball at 8,20 moving 1.2,-0.7"
CONFIG = WorldConfig(threads=1, cache=CacheConfig(window_blocks=2))


@pytest.fixture(scope="module")
def world(tiny_world: Callable[[int], WorldModel]) -> WorldModel:
    return tiny_world(0)


def request_of(num_blocks: int, *steers: Steer) -> ClipRequest:
    return ClipRequest(prompt=SCENE, num_blocks=num_blocks, seed=3, steers=steers)


@pytest.fixture(scope="module")
def made(world: WorldModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Block]]:
    """A clip of four blocks, pushed once, and its blocks as they were told of."""
    out = tmp_path_factory.mktemp("clip") / "out"
    blocks: list[Block] = []
    steered = request_of(4, Steer(block=2, text="push left", blocks=1))
    ended = generate(world, CONFIG, steered, out, argv=["world"], on_block=blocks.append)
    assert ended.outcome == "complete"
    return out, blocks


def test_every_frame_is_a_png_of_its_pixels(made: tuple[Path, list[Block]]) -> None:
    out, blocks = made
    frames = np.concatenate([block.frames for block in blocks])
    paths = sorted((out / "frames").iterdir())
    assert [path.name for path in paths] == [f"{number:06d}.png" for number in range(12)]
    for path, frame in zip(paths, frames, strict=True):
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), frame)


def test_records_say_which_frames_were_made_with_which_prompt(made: tuple[Path, list[Block]]) -> None:
    records = list(ClipFolder(made[0]).read_records())
    assert [record.prompt for record in records] == [SCENE, "none", "push left", "none"]
    assert [(record.first_frame, record.num_frames) for record in records] == [(0, 3), (3, 3), (6, 3), (9, 3)]
    assert len({record.cache_bytes for record in records}) == 1


def test_the_folder_holds_all_that_the_clip_can_be_made_again_from(
    made: tuple[Path, list[Block]], world: WorldModel, tmp_path: Path
) -> None:
    out, _ = made
    info = json.loads((out / "run.json").read_text(encoding="utf-8"))
    request = ClipRequest.model_validate_json(json.dumps(info["request"]))
    again = generate(world, load_world_config(out / "config.toml"), request, tmp_path / "again", argv=[])
    for path in (out / "frames").iterdir():
        assert path.read_bytes() == (again.folder.frames_path / path.name).read_bytes()


def test_the_summary_and_the_timeline_say_what_each_part_took(made: tuple[Path, list[Block]]) -> None:
    summary = json.loads((made[0] / "summary.json").read_text(encoding="utf-8"))
    assert summary["outcome"] == "complete"
    assert (summary["num_blocks"], summary["num_frames"], summary["size"]) == (4, 12, [32, 32])
    assert 0 < summary["fps"] < summary["fps_without_decode"]
    assert 0 < summary["overhead_share"] < 1
    assert summary["cache_bytes"] > 0
    events = json.loads((made[0] / "timeline.json").read_text(encoding="utf-8"))
    names = [event["name"] for event in events if event["ph"] == "X"]
    assert names.count("world_step") == 4 * 4
    assert names.count("world_decode") == names.count("write_frames") == 4
    assert names.count("world_commit") >= 3


def test_a_gif_shows_the_clip(made: tuple[Path, list[Block]]) -> None:
    with Image.open(made[0] / "clip.gif") as gif:
        assert gif.size == (256, 256)
        assert gif.n_frames > 1


def test_ctrl_c_keeps_and_shows_what_finished(world: WorldModel, tmp_path: Path) -> None:
    def interrupt(block: Block) -> None:
        if block.index == 1:
            signal.raise_signal(signal.SIGINT)

    ended = generate(world, CONFIG, request_of(9), tmp_path / "out", argv=[], on_block=interrupt)
    assert ended.outcome == "interrupted"
    assert len(list(ended.folder.frames_path.iterdir())) == 6
    assert len(list(ended.folder.read_records())) == 2
    assert ended.folder.gif_path.exists()
    assert json.loads(ended.folder.summary_path.read_text(encoding="utf-8"))["num_blocks"] == 2
    json.loads(ended.folder.timeline_path.read_text(encoding="utf-8"))  # whole, not torn


def test_a_disk_that_takes_no_more_ends_the_clip_and_keeps_what_it_took(
    world: WorldModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_block = ClipFolder.add_block

    def full(folder: ClipFolder, record: Any, frames: Any) -> None:
        if record.block == 1:
            raise StorageError("cannot write: no space left on device")
        add_block(folder, record, frames)

    monkeypatch.setattr(ClipFolder, "add_block", full)
    ended = generate(world, CONFIG, request_of(4), tmp_path / "out", argv=[])
    assert ended.outcome == "stopped"
    assert "no space" in str(ended.reason)
    assert ended.summary["num_blocks"] == 1


def test_an_mp4_that_cannot_be_made_is_a_warning(
    world: WorldModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip, "find_ffmpeg", lambda: str(tmp_path / "nowhere"))
    ended = generate(world, CONFIG, request_of(1), tmp_path / "out", argv=[])
    assert ended.outcome == "complete"
    assert len(ended.warnings) == 1
    assert ended.folder.gif_path.exists()


def test_mistakes_are_found_before_there_is_a_folder(world: WorldModel, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RequestError, match="unknown action 'jump'"):
        generate(world, CONFIG, request_of(4, Steer(block=1, text="jump")), out, argv=[])
    with pytest.raises(ConfigError, match="memory_budget_mb"):
        generate(world, WorldConfig(memory_budget_mb=0.001), request_of(4), out, argv=[])
    assert not out.exists()
    (tmp_path / "mine.txt").touch()
    with pytest.raises(StorageError, match="is not empty"):
        generate(world, CONFIG, request_of(1), tmp_path, argv=[])


@pytest.mark.parametrize(
    ("text", "is_action", "expected"),
    [
        ("5:push left", True, Steer(block=5, text="push left", blocks=1)),
        ("5:a dog: brown", False, Steer(block=5, text="a dog: brown", blocks=None)),
        ("5-7: push left", True, Steer(block=5, text="push left", blocks=3)),
        ("2-2:a dog", False, Steer(block=2, text="a dog", blocks=1)),
    ],
)
def test_steering_is_written_as_blocks_and_text(text: str, is_action: bool, expected: Steer) -> None:
    assert parse_steer(text, is_action=is_action) == expected


@pytest.mark.parametrize(
    "text", ["push left", "5", "5:", "x:push", ":push", "-3:push", "3-:push", "0:push", "5-4:push"]
)
def test_steering_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--steer is"):
        parse_steer(text, is_action=True)


def test_a_request_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_blocks is 0"):
        parse_request(prompt=SCENE, num_blocks=0)
    with pytest.raises(ConfigError, match="not of block 4"):
        parse_request(prompt=SCENE, num_blocks=4, steers=(Steer(block=4, text="push left"),))
    with pytest.raises(ConfigError, match="prompt is ''"):
        parse_request(prompt="", num_blocks=4)
