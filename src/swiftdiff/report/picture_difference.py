"""Measures how far pictures are from those that another system made of the same requests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from swiftdiff.quality.picture_files import IncomparableError, read_pair
from swiftdiff.quality.quality_report import psnr_db


@dataclass(frozen=True)
class PictureDifference:
    """How one picture differs from the baseline's, over its pixels' red, green and blue.

    Attributes:
        request_id: Of the request.
        index: Of the picture in the request.
        max_abs: Largest difference, in levels from 0 to 255.
        mean_abs: Mean difference, in levels.
        mean_square: Mean of the squared differences.
    """

    request_id: str
    index: int
    max_abs: int
    mean_abs: float
    mean_square: float

    @property
    def psnr_db(self) -> float:
        """Peak signal-to-noise ratio in dB; infinite for identical pictures."""
        return psnr_db(self.mean_square)


@dataclass(frozen=True)
class PictureComparison:
    """A run's pictures against the baseline's.

    Attributes:
        pairs: Those that could be compared, in the baseline's order.
        problems: One sentence each for pictures that could not.
    """

    pairs: tuple[PictureDifference, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def identical(self) -> int:
        """Pictures without any difference."""
        return sum(pair.max_abs == 0 for pair in self.pairs)

    @property
    def worst(self) -> PictureDifference | None:
        """The picture with the largest mean square difference."""
        return max(self.pairs, key=lambda pair: pair.mean_square, default=None)

    @property
    def max_abs(self) -> int | None:
        """Largest difference in any picture, in levels; None without pictures."""
        return max((pair.max_abs for pair in self.pairs), default=None)

    @property
    def mean_abs(self) -> float | None:
        """Mean over the pictures of their mean difference, in levels; None without pictures."""
        return float(np.mean([pair.mean_abs for pair in self.pairs])) if self.pairs else None

    @property
    def psnr_db(self) -> float | None:
        """PSNR of the mean over the pictures of their mean square; infinite if all are identical."""
        # A mean of decibels would be infinite as soon as one picture is identical.
        return psnr_db(float(np.mean([pair.mean_square for pair in self.pairs]))) if self.pairs else None


@dataclass
class _Collected:
    pairs: list[PictureDifference] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def compare_pictures(requests: Iterable[tuple[str, Iterable[Path], Iterable[Path]]]) -> PictureComparison:
    """Compare pictures request by request and index by index.

    Args:
        requests: Request id, the baseline's files and the run's files, each in the order of the seeds.
    """
    found = _Collected()
    for request_id, baseline, other in requests:
        before, after = tuple(baseline), tuple(other)
        if len(before) != len(after):
            found.problems.append(
                f"request {request_id}: {len(after)} pictures, the baseline has {len(before)}"
            )
        for index, paths in enumerate(zip(before, after, strict=False)):
            try:
                found.pairs.append(_compare(request_id, index, *paths))
            except IncomparableError as error:
                found.problems.append(str(error))
    return PictureComparison(tuple(found.pairs), tuple(found.problems))


def _compare(request_id: str, index: int, baseline: Path, other: Path) -> PictureDifference:
    before, after = read_pair(baseline, other)
    difference = np.abs(after.astype(np.int16) - before)
    return PictureDifference(
        request_id,
        index,
        int(difference.max()),
        float(difference.mean()),
        float(np.square(difference.astype(np.float64)).mean()),
    )
