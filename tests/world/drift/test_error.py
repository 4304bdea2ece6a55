"""The video drift error is LV-Bench's to the letter, and its normalised form is always finite."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftdiff.errors import ConfigError
from swiftdiff.world.drift.error import (
    Drift,
    measure_clip,
    normalised_drift,
    split_chunks,
    video_drift_error,
)
from swiftdiff.world.drift.plug import load_metrics


def test_the_error_is_the_sum_that_the_benchmark_defines() -> None:
    values = [2.0, 2.2, 1.8, 3.0]
    # w_i = N - i + 1 for i = 2, 3, 4: 3, 2, 1; changes 0.1, 0.1 and 0.5 of the first chunk
    assert video_drift_error(values) == pytest.approx(3 * 0.1 + 2 * 0.1 + 1 * 0.5)
    assert video_drift_error(values, "log") == pytest.approx(math.log(3) * 0.1 + math.log(2) * 0.1)


def test_a_first_chunk_of_zero_makes_the_error_infinite_and_leaves_the_normalised_form_finite() -> None:
    drift = Drift.of([0.0, 1.0, 0.0])
    assert drift.linear == math.inf
    assert drift.log == math.inf
    # weights 2 and 1; the change is 1 of the second chunk and 0 of the third
    assert drift.normalised == pytest.approx(2 / 3)


def test_a_single_chunk_does_not_drift() -> None:
    assert Drift.of([3.0]) == Drift((3.0,), 0.0, 0.0, 0.0)
    assert normalised_drift([1.0, 5.0], "log") == 0  # the logarithm of the only weight is 0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12))
def test_the_normalised_form_lies_between_0_and_1_and_does_not_depend_on_scale(values: list[float]) -> None:
    drift = normalised_drift(values)
    assert 0 <= drift <= 1
    assert normalised_drift([8 * value for value in values]) == pytest.approx(drift)
    assert normalised_drift([values[0]] * 5) == 0


def test_chunks_are_of_equal_length_and_what_is_left_over_is_dropped() -> None:
    frames = np.zeros((35, 2, 2, 3), np.uint8)
    frames[30:] = 255
    chunks = split_chunks(frames)
    assert [len(chunk) for chunk in chunks] == [3] * 10
    assert max(chunk.max() for chunk in chunks) == 0
    assert split_chunks(frames, 7)[-1].max() == 1


def test_a_clip_that_is_too_short_is_refused_with_the_length_it_needs() -> None:
    with pytest.raises(ConfigError, match=r"29 frames .* 30 are needed"):
        split_chunks(np.zeros((29, 2, 2, 3), np.uint8))


def test_each_metric_is_given_chunks_and_its_values_are_kept() -> None:
    frames = np.repeat(np.arange(10, dtype=np.uint8), 3)[:, None, None, None] * np.ones((2, 2, 3), np.uint8)
    drifts = measure_clip(frames, {"brightness": lambda chunk: float(chunk.mean() * 255)})
    assert drifts["brightness"].values == pytest.approx(range(10), abs=1e-5)


def test_a_metric_that_fails_or_gives_nan_is_named() -> None:
    frames = np.zeros((30, 2, 2, 3), np.uint8)
    with pytest.raises(ConfigError, match="metric bad gave nan for chunk 1"):
        measure_clip(frames, {"bad": lambda chunk: math.nan})
    with pytest.raises(ConfigError, match="metric broken failed on chunk 1: ZeroDivisionError"):
        measure_clip(frames, {"broken": lambda chunk: 1 / 0})


def test_a_file_of_learned_metrics_is_plugged_in(tmp_path: Path) -> None:
    file = tmp_path / "learned.py"
    file.write_text("METRICS = {'mean': lambda chunk: chunk.mean()}\n", encoding="utf-8")
    metric = load_metrics(file)["mean"]
    assert metric(np.ones((3, 2, 2, 3), np.float32)) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = 1\n", "must define METRICS"),
        ("METRICS = {}\n", "must define METRICS"),
        ("METRICS = {'a': 3}\n", "must define METRICS"),
        ("METRICS = {'clarity (proxy)': len}\n", "must not end in"),
        ("import nothing_of_that_name\n", "fails: ModuleNotFoundError"),
        ("raise SystemExit\n", "fails: SystemExit"),
        ("METRICS = {\n", "fails: SyntaxError"),
    ],
)
def test_a_file_without_metrics_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "learned.py"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=complaint):
        load_metrics(file)


def test_a_missing_file_of_metrics_and_one_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_metrics(tmp_path / "none.py")
    (tmp_path / "metrics.txt").write_text("METRICS = {}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"must end in \.py"):
        load_metrics(tmp_path / "metrics.txt")
