"""Owns the video drift error: how far a metric of a clip's later chunks strays from its first chunk.

The definition is LV-Bench's (BlockVid, arXiv 2511.22973), which Inferix (arXiv 2511.20714) names as its
benchmark: a clip is cut into N = 10 chunks of equal length, a metric M is taken of each, and the error is
the sum over i from 2 to N of ``w_i * |M_i - M_1| / M_1`` with ``w_i = N - i + 1`` or its logarithm. It is
infinite at M_1 = 0, so a normalised form stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from swiftdiff.errors import ConfigError

Weighting = Literal["linear", "log"]
Frames = NDArray[np.uint8]
Metric = Callable[[NDArray[np.float32]], float]

NUM_CHUNKS: Final = 10


@dataclass(frozen=True)
class Drift:
    """What a metric's drift over one clip comes to.

    Attributes:
        values: The metric of each chunk, M_1 to M_N.
        linear: The video drift error with linear weights; infinite at M_1 = 0.
        log: The same with their logarithms.
        normalised: From 0, no drift, to 1; finite always. See `normalised_drift`.
    """

    values: tuple[float, ...]
    linear: float
    log: float
    normalised: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Drift:
        """Compute all forms from a metric's values."""
        return cls(
            tuple(values),
            video_drift_error(values, "linear"),
            video_drift_error(values, "log"),
            normalised_drift(values),
        )


def video_drift_error(values: Sequence[float], weighting: Weighting = "linear") -> float:
    """Return the error exactly as LV-Bench defines it; infinite at M_1 = 0, and 0 of a single chunk.

    Args:
        values: The metric of each chunk, M_1 to M_N.
        weighting: ``linear``: N - i + 1; ``log``: its natural logarithm, so that the last chunk weighs 0.
    """
    if len(values) < 2:
        return 0.0
    metric = np.asarray(values, np.float64)
    if metric[0] == 0:
        return math.inf
    return float(np.sum(_weights(len(values), weighting) * np.abs(metric[1:] - metric[0]) / metric[0]))


def normalised_drift(values: Sequence[float], weighting: Weighting = "linear") -> float:
    """Return the weighted mean of ``|M_i - M_1| / (|M_i| + |M_1|)``, from 0 to 1.

    It is finite at M_1 = 0 (two zeros have not drifted), does not grow with the number of chunks, and does
    not depend on the metric's scale.

    Args:
        values: The metric of each chunk, M_1 to M_N.
        weighting: As in `video_drift_error`.
    """
    weights = _weights(len(values), weighting)
    if weights.sum() == 0:  # one chunk; or two, of which the logarithm counts neither
        return 0.0
    metric = np.asarray(values, np.float64)
    size = np.abs(metric[1:]) + abs(metric[0])
    change = np.abs(metric[1:] - metric[0]) / np.where(size == 0, 1, size)
    return float(np.sum(weights * change) / weights.sum())


def split_chunks(frames: Frames, num_chunks: int = NUM_CHUNKS) -> list[NDArray[np.float32]]:
    """Cut a clip into chunks of equal length; frames that are left over at its end are dropped.

    Args:
        frames: uint8 [F, H, W, 3].
        num_chunks: N.

    Returns:
        float32 [F // N, H, W, 3] each, levels from 0 to 1.

    Raises:
        ConfigError: There are fewer than three frames a chunk: nothing moves in fewer.
    """
    length = len(frames) // num_chunks
    if length < 3:
        raise ConfigError(
            f"a clip of {len(frames)} frames is too short for {num_chunks} chunks of at least 3 frames: "
            f"{3 * num_chunks} are needed"
        )
    chunks = (frames[start : start + length] for start in range(0, length * num_chunks, length))
    return [chunk.astype(np.float32) / np.float32(255) for chunk in chunks]


def measure_clip(
    frames: Frames, metrics: Mapping[str, Metric], num_chunks: int = NUM_CHUNKS
) -> dict[str, Drift]:
    """Return the drift of each metric over one clip.

    Args:
        frames: uint8 [F, H, W, 3].
        metrics: By name; each is given a chunk, float32 [F // N, H, W, 3] from 0 to 1.
        num_chunks: N.

    Raises:
        ConfigError: The clip is too short, or a metric fails or gives no finite number.
    """
    chunks = split_chunks(frames, num_chunks)
    return {
        name: Drift.of([_value(name, metric, chunk, index) for index, chunk in enumerate(chunks, start=1)])
        for name, metric in metrics.items()
    }


def _weights(count: int, weighting: Weighting) -> NDArray[np.float64]:
    linear = np.arange(count - 1, 0, -1, dtype=np.float64)  # N - i + 1 for i from 2 to N
    return linear if weighting == "linear" else np.log(linear)


def _value(name: str, metric: Metric, chunk: NDArray[np.float32], index: int) -> float:
    try:
        value = float(metric(chunk))
    except Exception as error:  # a learned metric of the user's can fail in any way
        raise ConfigError(
            f"metric {name} failed on chunk {index}: {type(error).__name__}: {error}"
        ) from error
    if not math.isfinite(value):
        raise ConfigError(f"metric {name} gave {value} for chunk {index}, but must give a finite number")
    return value
