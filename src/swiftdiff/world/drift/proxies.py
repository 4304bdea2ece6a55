"""Owns metrics of a chunk of video that need no weights. They are proxies, and named so.

LV-Bench measures clarity with MUSIQ, motion with AMT's interpolation, subject with DINO and background with
CLIP. What is here looks for the same things by simple means: it tells a clip that blurs, freezes or changes
colour from one that does not, and its numbers are not those of the learned metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swiftdiff.world.drift.error import Metric

_Chunk = NDArray[np.float32]
_Vector = NDArray[np.float64]

_LUMA = np.array((0.299, 0.587, 0.114), np.float32)
_LEVELS = 4  # of each colour channel in a histogram
_SUBJECT_DISTANCE = 0.15  # of a pixel's strongest channel from the ground's colour
_CELLS = 4  # of the background along each side


def clarity(chunk: _Chunk) -> float:
    """Return the mean strength of edges: the absolute Laplacian of the luminance. Blur lowers it.

    Args:
        chunk: float32 [F, H, W, 3] from 0 to 1.
    """
    luma = chunk @ _LUMA
    inner = luma[:, 1:-1, 1:-1]
    around = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
    return float(np.abs(4 * inner - around).mean())


def motion(chunk: _Chunk) -> float:
    """Return how well each second frame is the mean of its neighbours, 1 being exactly. Jerks lower it.

    VBench's smoothness with a plain mean in place of a network that interpolates.

    Args:
        chunk: float32 [F, H, W, 3] from 0 to 1, at least three frames.
    """
    middle = chunk[1:-1:2]
    between = (chunk[0:-2:2] + chunk[2::2]) / 2
    return float(1 - np.abs(middle - between).mean())


def dynamic(chunk: _Chunk) -> float:
    """Return the mean change from frame to frame. A clip that freezes goes to 0.

    Args:
        chunk: float32 [F, H, W, 3] from 0 to 1.
    """
    return float(np.abs(np.diff(chunk, axis=0)).mean())


def subject(chunk: _Chunk) -> float:
    """Return how alike the colours of what stands out from the ground stay, from 0 to 1.

    Args:
        chunk: float32 [F, H, W, 3] from 0 to 1.
    """
    return _consistency([_subject_colours(frame) for frame in chunk], _cosine)


def background(chunk: _Chunk) -> float:
    """Return how alike the ground stays, place by place, from 0 to 1.

    Args:
        chunk: float32 [F, H, W, 3] from 0 to 1.
    """
    return _consistency([_ground_cells(frame) for frame in chunk], _nearness)


PROXIES: Final[dict[str, Metric]] = {
    "clarity (proxy)": clarity,
    "motion (proxy)": motion,
    "dynamic (proxy)": dynamic,
    "subject (proxy)": subject,
    "background (proxy)": background,
}


def _consistency(features: Sequence[_Vector], similarity: Callable[[_Vector, _Vector], float]) -> float:
    """Mean similarity of each frame with the one before and with the first, as VBench has it."""
    return float(
        np.mean(
            [
                (similarity(before, now) + similarity(features[0], now)) / 2
                for before, now in pairwise(features)
            ]
        )
    )


def _find_ground(frame: _Chunk) -> tuple[_Vector, NDArray[np.bool_]]:
    """Return the most frequent colour and where the frame differs from it."""
    codes = _colour_codes(frame)
    most = np.bincount(codes.ravel(), minlength=_LEVELS**3).argmax()
    ground = frame[codes == most].mean(axis=0).astype(np.float64)
    return ground, np.abs(frame - ground).max(axis=-1) > _SUBJECT_DISTANCE


def _colour_codes(frame: _Chunk) -> NDArray[np.int64]:
    levels = np.minimum((frame * _LEVELS).astype(np.int64), _LEVELS - 1)
    codes: NDArray[np.int64] = (levels[..., 0] * _LEVELS + levels[..., 1]) * _LEVELS + levels[..., 2]
    return codes


def _subject_colours(frame: _Chunk) -> _Vector:
    _, is_subject = _find_ground(frame)
    return np.bincount(_colour_codes(frame)[is_subject], minlength=_LEVELS**3).astype(np.float64)


def _ground_cells(frame: _Chunk) -> _Vector:
    ground, is_subject = _find_ground(frame)
    cells = []
    for rows, masked in zip(np.array_split(frame, _CELLS), np.array_split(is_subject, _CELLS), strict=True):
        for cell, hidden in zip(
            np.array_split(rows, _CELLS, axis=1), np.array_split(masked, _CELLS, axis=1), strict=True
        ):
            cells.append(ground if hidden.all() else cell[~hidden].mean(axis=0))
    return np.concatenate(cells).astype(np.float64)


def _cosine(one: _Vector, other: _Vector) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    if lengths == 0:  # nothing stands out in one of the frames, or in both
        return float(one.any() == other.any())
    return float(one @ other) / lengths


def _nearness(one: _Vector, other: _Vector) -> float:
    return 1 - float(np.abs(one - other).mean())
