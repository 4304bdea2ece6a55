"""The commands drift, convert and bench: what they print, what they refuse, and how they exit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner
from wan_checkpoint import original_weights

from swiftdiff.cli.world import app
from swiftdiff.errors import ConfigError

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def _own_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_drift_of_given_clips_prints_a_table_and_the_floor(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("clip", "truth"):
        np.save(tmp_path / f"{name}.npy", rng.integers(0, 256, (30, 8, 8, 3), np.uint8))
    clip, truth = str(tmp_path / "clip.npy"), str(tmp_path / "truth.npy")
    shown = RUNNER.invoke(app, ["drift", clip, "--truth", truth], env={"COLUMNS": "80"})
    assert shown.exit_code == 0, shown.output
    assert "  ground truth" in shown.output
    assert "over 1 clip." in " ".join(shown.output.split())
    assert max(map(len, shown.output.splitlines())) <= 80
    as_json = RUNNER.invoke(app, ["drift", clip, "--json"])
    assert {each["way"] for each in json.loads(as_json.stdout)} == {"clip"}


def test_drift_of_new_clips_says_how_each_policy_does(tiny_world_folder: Path) -> None:
    arguments = ["--model", str(tiny_world_folder), "--blocks", "10", "--seeds", "1", "--policy", "window"]
    found = RUNNER.invoke(app, ["drift", *arguments, "--json"])
    assert found.exit_code == 0, found.output
    ways = {(each["way"], each["metric"]) for each in json.loads(found.stdout)}
    assert {("window", "clarity (proxy)"), ("ground truth", "balls (physics)")} <= ways


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["clip.npy", "--model", "bounce"], "given clips are only measured"),
        (["clip.npy", "--blocks", "20"], "given clips are only measured"),
        (["--truth", "clip.npy"], "--truth is beside given clips"),
        (["--policy", "ring"], "--policy is 'ring', but must be full, window, window"),
        (["--metrics", "none.py"], "there is no such file"),
    ],
)
def test_drift_refuses_what_makes_no_sense(arguments: list[str], complaint: str) -> None:
    refused = RUNNER.invoke(app, ["drift", *arguments])
    assert isinstance(refused.exception, ConfigError)
    assert complaint in str(refused.exception)


def test_clips_of_different_sizes_are_not_compared(tmp_path: Path) -> None:
    for name, side in (("clip", 8), ("large", 16)):
        np.save(tmp_path / f"{name}.npy", np.zeros((30, side, side, 3), np.uint8))
    refused = RUNNER.invoke(
        app, ["drift", str(tmp_path / "clip.npy"), "--truth", str(tmp_path / "large.npy")]
    )
    assert isinstance(refused.exception, ConfigError)
    assert "has pictures of 16x16" in str(refused.exception)


def test_convert_says_what_it_wrote_and_what_is_missing(tmp_path: Path) -> None:
    torch.save({"generator_ema": original_weights()}, tmp_path / "model.pt")
    arguments = ["convert", str(tmp_path / "model.pt"), "--out", str(tmp_path / "world"), "--head-dim", "24"]
    done = RUNNER.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "still missing to run it: vae and prompts.safetensors" in done.output
    again = RUNNER.invoke(app, [*arguments[:3], str(tmp_path / "other"), *arguments[4:], "--json"])
    assert json.loads(again.stdout)["config"]["num_layers"] == 2


def test_bench_measures_prints_and_is_resumed_by_its_folder_alone(
    tmp_path: Path, tiny_world_folder: Path
) -> None:
    out = tmp_path / "bench"
    small = ["--repeats", "1", "--clip-blocks", "2", "--window", "1", "--long-blocks", "2"]
    small += ["--drift-blocks", "10", "--drift-seeds", "1", "--model", str(tiny_world_folder)]
    shown = RUNNER.invoke(app, ["bench", *small, "--out", str(out)], env={"COLUMNS": "80"})
    assert shown.exit_code in (0, 1), shown.output  # whether times are good enough is not what is tested
    assert "What is asked for" in shown.output
    again = RUNNER.invoke(app, ["bench", "--resume", str(out), "--json"])
    summary = json.loads(again.stdout)
    assert summary["complete"] is True
    assert summary["findings"][0]["name"] == "cache vs recompute, largest error"
    assert summary["findings"][0]["is_met"] is True
    refused = RUNNER.invoke(app, ["bench", "--resume", str(out), "--repeats", "3"])
    assert "beside it there can only be --json" in str(refused.exception)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--clip-blocks", "7;14"], "--clip-blocks is '7;14'"),
        (["--clip-blocks", "0"], "clip_blocks[0] is 0, but must be at least 1"),
    ],
)
def test_bench_refuses_options_that_are_wrong(arguments: list[str], complaint: str) -> None:
    refused = RUNNER.invoke(app, ["bench", *arguments])
    assert complaint in str(refused.exception)
