from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from swiftdiff.errors import ConfigError, RequestError, StorageError
from swiftdiff.world import clip_making
from swiftdiff.world.clip import generate, resume
from swiftdiff.world.clip_folder import ClipFolder
from swiftdiff.world.clip_making import ClipEnded
from swiftdiff.world.clip_request import ClipRequest, Steer, parse_request, parse_steer
from swiftdiff.world.config import CacheConfig, SamplerConfig, WorldConfig
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
    records = ClipFolder(made[0]).read_records()
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
    assert len(ended.folder.read_records()) == 2
    assert ended.folder.gif_path.exists()
    assert json.loads(ended.folder.summary_path.read_text(encoding="utf-8"))["num_blocks"] == 2
    json.loads(ended.folder.timeline_path.read_text(encoding="utf-8"))  # whole, not torn


def interrupted(
    world: WorldModel, out: Path, request: ClipRequest, config: WorldConfig, at: int
) -> ClipEnded:
    """A clip that Ctrl-C ended after block ``at``."""

    def interrupt(block: Block) -> None:
        if block.index == at:
            signal.raise_signal(signal.SIGINT)

    ended = generate(world, config, request, out, argv=[], on_block=interrupt)
    assert (ended.outcome, ended.summary["num_blocks"]) == ("interrupted", at + 1)
    return ended


def pictures(folder: ClipFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.frames_path.iterdir()}


STEERED = (Steer(block=1, text="push up", blocks=3), Steer(block=4, text="colour"))
RESUMED = {
    "window": CONFIG,
    "sinks in int8": WorldConfig(
        threads=1, cache=CacheConfig(policy="window+sink", window_blocks=2, dtype="int8")
    ),
    "guidance and recache": CONFIG.model_copy(update={"guidance_scale": 3.0, "on_prompt_change": "recache"}),
    "fresh noise, kept prompts, host": WorldConfig(
        threads=1,
        sampler=SamplerConfig(renoise=True),
        cache=CacheConfig(window_blocks=2, storage="host"),
        on_prompt_change="keep",
    ),
}


@pytest.mark.parametrize("config", RESUMED.values(), ids=RESUMED)
def test_a_resumed_clip_is_bit_for_bit_the_one_that_was_never_interrupted(
    world: WorldModel, tmp_path: Path, config: WorldConfig
) -> None:
    request = request_of(5, *STEERED)
    whole = generate(world, config, request, tmp_path / "whole", argv=[])
    ended = interrupted(world, tmp_path / "out", request, config, at=2)
    restored: list[tuple[int, int]] = []
    again: list[int] = []
    resumed = resume(
        ended.folder.path,
        load=lambda name, device: world,
        on_block=lambda block: again.append(block.index),
        on_restored=lambda done, total: restored.append((done, total)),
    )
    assert (resumed.outcome, resumed.warnings) == ("complete", ())
    assert again == [3, 4]
    assert restored == [(1, 3), (2, 3), (3, 3)]
    assert pictures(resumed.folder) == pictures(whole.folder)
    assert resumed.folder.gif_path.read_bytes() == whole.folder.gif_path.read_bytes()
    told = [(record.block, record.prompt, record.first_frame) for record in resumed.folder.read_records()]
    assert told == [
        (record.block, record.prompt, record.first_frame) for record in whole.folder.read_records()
    ]


def test_a_clip_may_be_interrupted_again_and_what_a_crash_tore_is_passed_over(
    world: WorldModel, tmp_path: Path, made: tuple[Path, list[Block]]
) -> None:
    request = request_of(4, Steer(block=2, text="push left", blocks=1))
    folder = interrupted(world, tmp_path / "out", request, CONFIG, at=0).folder
    with folder.records_path.open("a", encoding="utf-8") as file:
        file.write('{"block": 1, "pro')
    folder.frame_path(3).write_bytes(b"half a picture")

    def interrupt(block: Block) -> None:
        if block.index == 2:
            signal.raise_signal(signal.SIGINT)

    assert resume(folder.path, load=lambda *_: world, on_block=interrupt).outcome == "interrupted"
    ended = resume(folder.path, load=lambda *_: world)
    assert ended.outcome == "complete"
    assert pictures(folder) == pictures(ClipFolder(made[0]))
    records = folder.read_records()
    times = [record.finished_at_s for record in records]
    assert times == sorted(times)
    assert 0 < ended.summary["overhead_share"] < 1
    events = json.loads(folder.timeline_path.read_text(encoding="utf-8"))
    assert {event["pid"] for event in events} == {1, 2, 3}
    assert json.loads(folder.summary_path.read_text(encoding="utf-8"))["num_frames"] == 12


def test_a_clip_that_is_complete_needs_no_model(made: tuple[Path, list[Block]], tmp_path: Path) -> None:
    def load(name: str, device: str) -> WorldModel:
        raise AssertionError("no block is missing")

    whole = ClipFolder(made[0])
    before = whole.summary_path.read_bytes()
    assert resume(whole.path, load=load).outcome == "complete"
    assert whole.summary_path.read_bytes() == before
    crashed = ClipFolder(shutil.copytree(made[0], tmp_path / "crashed"))
    for path in (crashed.summary_path, crashed.gif_path):
        path.unlink()
    assert resume(crashed.path, load=load).summary["num_frames"] == 12
    assert crashed.gif_path.read_bytes() == whole.gif_path.read_bytes()


def test_a_clip_is_not_gone_on_with_by_another_model(
    world: WorldModel, tiny_world: Callable[[int], WorldModel], tmp_path: Path
) -> None:
    folder = interrupted(world, tmp_path / "out", request_of(4), CONFIG, at=1).folder
    before = pictures(folder)
    ended = resume(folder.path, load=lambda *_: tiny_world(1))
    assert ended.outcome == "stopped"
    assert "this is not the model that the clip" in str(ended.reason)
    assert pictures(folder) == before
    nearly = np.load(folder.latents_path / "000001.npy") + np.float32(1e-4)
    np.save(folder.latents_path / "000001.npy", nearly)
    ended = resume(folder.path, load=lambda *_: world)
    assert ended.outcome == "complete"
    assert "differs by up to 0.0001 from what is on disk" in ended.warnings[0]


def test_what_cannot_be_resumed_is_told(world: WorldModel, tmp_path: Path) -> None:
    folder = interrupted(world, tmp_path / "out", request_of(4), CONFIG, at=1).folder
    with pytest.raises(
        StorageError, match=f"to go on with the clip in it: --resume {re.escape(str(folder.path))}"
    ):
        generate(world, CONFIG, request_of(4), folder.path, argv=[])
    with pytest.raises(StorageError, match=r"is no clip's folder: it has no run\.json"):
        resume(tmp_path)
    latents = folder.latents_path / "000000.npy"
    for damage, complaint in ((b"", "is damaged"), (b"x" * 99, "is damaged")):
        latents.write_bytes(damage)
        ended = resume(folder.path, load=lambda *_: world)
        assert (ended.outcome, ended.summary["num_blocks"]) == ("stopped", 2)
        assert complaint in str(ended.reason)
    np.save(latents, np.zeros((1, 4, 3, 8, 9), np.float32))
    assert "does not hold finite float32 of shape" in str(resume(folder.path, load=lambda *_: world).reason)
    latents.unlink()
    assert "cannot read" in str(resume(folder.path, load=lambda *_: world).reason)
    info = json.loads(folder.info_path.read_text(encoding="utf-8"))
    folder.info_path.write_text(json.dumps({"trace": "t.jsonl"}), encoding="utf-8")
    with pytest.raises(StorageError, match="is no clip's"):
        resume(folder.path)
    folder.info_path.write_text(json.dumps(info), encoding="utf-8")
    lines = folder.records_path.read_text(encoding="utf-8").splitlines(keepends=True)
    folder.records_path.write_text(lines[1], encoding="utf-8")
    with pytest.raises(StorageError, match="the record is of block 1"):
        resume(folder.path)


def test_a_disk_that_takes_no_more_ends_the_clip_and_keeps_what_it_took(
    world: WorldModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_block = ClipFolder.add_block

    def full(folder: ClipFolder, record: Any, frames: Any, latents: Any) -> None:
        if record.block == 1:
            raise StorageError("cannot write: no space left on device")
        add_block(folder, record, frames, latents)

    monkeypatch.setattr(ClipFolder, "add_block", full)
    ended = generate(world, CONFIG, request_of(4), tmp_path / "out", argv=[])
    assert ended.outcome == "stopped"
    assert "no space" in str(ended.reason)
    assert ended.summary["num_blocks"] == 1


def test_an_mp4_that_cannot_be_made_is_a_warning(
    world: WorldModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_making, "find_ffmpeg", lambda: str(tmp_path / "nowhere"))
    ended = generate(world, CONFIG, request_of(1), tmp_path / "out", argv=[])
    assert ended.outcome == "complete"
    assert len(ended.warnings) == 1
    assert ended.folder.gif_path.exists()


def test_mistakes_are_found_before_there_is_a_folder(world: WorldModel, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RequestError, match="unknown action 'jump'"):
        generate(world, CONFIG, request_of(4, Steer(block=1, text="jump")), out, argv=[])
    full = WorldConfig(cache=CacheConfig(policy="full", max_blocks=3))
    with pytest.raises(ConfigError, match="num_blocks is 4, but must be at most 3"):
        generate(world, full, request_of(4), out, argv=[])
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
    with pytest.raises(ConfigError, match="of a block below 4"):
        parse_request(prompt=SCENE, num_blocks=4, steers=(Steer(block=4, text="push left"),))
    with pytest.raises(ConfigError, match="prompt is ''"):
        parse_request(prompt="", num_blocks=4)
