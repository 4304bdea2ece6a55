"""Measures pairs of pictures, the baseline's and a system's, in every way that needs no other weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from .picture_files import IncomparableError, read_pair
from .picture_judge import Expectation, PictureJudge
from .pixels import compare_pixels
from .quality_report import EXACT_MAX_LEVELS, PictureQuality

_SMALLEST_SIDE = 8  # the window of the structural similarity reaches beyond smaller pictures


@dataclass(frozen=True)
class PicturePair:
    """Two files to compare.

    Attributes:
        request_id: Of the request.
        index: Of the picture in the request.
        repeat: Which of the system's runs it is of, from 0.
        before: The baseline's file.
        after: The system's.
        expected: Gives what it should show: called only when the judges need it.
    """

    request_id: str
    index: int
    repeat: int
    before: Path
    after: Path
    expected: Callable[[], Expectation]


def measure_pairs(
    pairs: Iterable[PicturePair], judge: PictureJudge
) -> tuple[tuple[PictureQuality, ...], tuple[str, ...]]:
    """Measure pairs, one at a time; also returns a sentence for each that could not be."""
    measured, problems = [], []
    for pair in pairs:
        try:
            measured.append(_measure(pair, judge))
        except IncomparableError as error:
            problems.append(str(error))
    return tuple(measured), tuple(problems)


def _measure(pair: PicturePair, judge: PictureJudge) -> PictureQuality:
    before, after = read_pair(pair.before, pair.after)
    if min(before.shape[:2]) < _SMALLEST_SIDE:
        raise IncomparableError(f"{pair.after} is smaller than {_SMALLEST_SIDE}×{_SMALLEST_SIDE}")
    pixels = compare_pixels(before, after)
    expected = pair.expected()
    scores = judge.score(before, expected)
    if pixels.max_levels <= EXACT_MAX_LEVELS:
        return PictureQuality(pair.request_id, pair.index, pair.repeat, pixels, scores, scores)
    return PictureQuality(
        pair.request_id, pair.index, pair.repeat, pixels, scores, judge.score(after, expected)
    )
