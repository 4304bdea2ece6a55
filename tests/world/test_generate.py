from __future__ import annotations

import json
from pathlib import Path

import pytest

from swiftdiff.cli.world import app
from swiftdiff.errors import StorageError, SwiftdiffError
from swiftdiff.world.clip_folder import BlockRecord, ClipFolder, Latents
from swiftdiff.world.decoding import Frames

SCENE = "red ball at 8,20 moving 1.2,-0.7"


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as raised:
        app(args=["generate", *arguments])
    code = raised.value.code
    assert isinstance(code, int)
    return code


def complaint_about(*arguments: str) -> str:
    """What ``swiftdiff`` shows in one line."""
    with pytest.raises(SwiftdiffError) as raised:
        app(args=["generate", *arguments])
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


def test_a_prompt_and_an_action_become_a_folder(
    tiny_world_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ("--blocks", "3", "--steer", "1:push left", "--threads", "1", "--out", str(out))
    assert call(SCENE, "--model", str(tiny_world_folder), *arguments) == 0
    shown = capsys.readouterr().out
    assert "3 blocks, 9 frames of 32x32" in shown
    assert "submit to first pixels" in shown
    assert max(len(line) for line in shown.splitlines() if str(tmp_path) not in line) <= 80
    assert (out / "clip.gif").exists()
    records = [json.loads(line) for line in (out / "blocks.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["prompt"] for record in records] == [SCENE, "push left", "none"]


def test_json_is_the_summary_and_nothing_else(
    tiny_world_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--blocks", "1", "--policy", "window+sink", "--window", "2", "--json")
    assert call(SCENE, "--model", str(tiny_world_folder), "--out", str(tmp_path / "out"), *arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))


def test_a_clip_that_was_cut_short_is_gone_on_with_from_any_folder(
    tiny_world_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_block = ClipFolder.add_block

    def full(folder: ClipFolder, record: BlockRecord, frames: Frames, latents: Latents) -> None:
        if record.block == 1:
            raise StorageError("cannot write: no space left on device")
        add_block(folder, record, frames, latents)

    monkeypatch.chdir(tiny_world_folder.parent)
    out = tmp_path / "a clip"
    with monkeypatch.context() as patch:
        patch.setattr(ClipFolder, "add_block", full)
        arguments = ("--model", tiny_world_folder.name, "--blocks", "2", "--threads", "1", "--out", str(out))
        assert call(SCENE, *arguments) == 2
    shown = capsys.readouterr()
    assert "stopped early: cannot write: no space left" in shown.err
    assert f"Go on with\n  swiftdiff world generate --resume '{out}'" in shown.out
    monkeypatch.chdir(tmp_path)
    assert call("--resume", str(out)) == 0
    assert "2 blocks, 6 frames of 32x32" in capsys.readouterr().out
    assert call("--resume", str(out), "--json") == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "complete"


@pytest.mark.parametrize("arguments", [(SCENE,), ("--seed", "0"), ("--window", "3"), ("--device", "cpu")])
def test_a_resumed_clip_takes_no_other_options(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    complaint = complaint_about("--resume", str(tmp_path), *arguments)
    assert complaint == "--resume goes on as the clip began: besides it there can only be --json"


def test_without_a_prompt_one_is_proposed(tiny_world_folder: Path, tmp_path: Path) -> None:
    complaint = complaint_about("--model", str(tiny_world_folder), "--out", str(tmp_path / "out"))
    assert complaint.startswith('name a PROMPT for block 0, such as "')
    assert " ball at " in complaint


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--window", "0"), "cache.window_blocks is 0, but must be at least 1"),
        (("--steer", "1:jump"), "unknown action 'jump'"),
        (("--steer", "jump"), "--steer is 'jump'"),
        (("--steer", "0:push left"), "block 0 is made with PROMPT"),
        (("--blocks", "0"), "num_blocks is 0"),
        (
            ("--blocks", "2", "--steer", "2:push left"),
            "--steer is '2:push left', but must be",
        ),
        (("--policy", "all"), "cache.policy is 'all'"),
        (("--seed", "-1"), "seed is -1"),
        (("--device", "tpu"), "tpu"),
    ],
)
def test_a_mistake_is_one_line_and_no_folder(
    tiny_world_folder: Path, tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    out = tmp_path / "out"
    error = complaint_about(SCENE, "--model", str(tiny_world_folder), "--out", str(out), *arguments)
    assert complaint in error
    assert not out.exists()


def test_a_budget_that_fits_no_session_is_one_line(tiny_world_folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "world.toml"
    config.write_text("memory_budget_mb = 0.01", encoding="utf-8")
    arguments = ("--model", str(tiny_world_folder), "--config", str(config), "--out", str(tmp_path / "out"))
    assert "memory_budget_mb is 0.01, but one session's cache takes" in complaint_about(SCENE, *arguments)
