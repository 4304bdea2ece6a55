"""Owns what a system's pictures come to beside the baseline's: pair by pair, and as estimates. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from .picture_judge import SCORE_NAMES, PictureScores
from .statistics import Estimate, bootstrap_mean

MAX_LEVEL: Final = 255
#: what float rounding of a sum in another order may change in a picture, in levels of 255
EXACT_MAX_LEVELS: Final = 1


@dataclass(frozen=True, slots=True)
class PixelDifference:
    """How one picture differs from another, over its pixels' red, green and blue.

    Attributes:
        ssim: Structural similarity (Wang et al., 2004), 1 for the same picture.
        mean_square: Mean of the squared differences, in levels squared.
        max_levels: Largest difference, in levels from 0 to 255.
        mean_levels: Mean difference, in levels.
    """

    ssim: float
    mean_square: float
    max_levels: int
    mean_levels: float

    @property
    def psnr_db(self) -> float:
        """Peak signal-to-noise ratio in dB; infinite for the same picture."""
        return psnr_db(self.mean_square)


def psnr_db(mean_square: float) -> float:
    """PSNR in dB of 8-bit pictures with a mean square difference in levels squared."""
    return 10 * math.log10(MAX_LEVEL**2 / mean_square) if mean_square > 0 else math.inf


@dataclass(frozen=True, slots=True)
class PictureQuality:
    """One picture beside the baseline's of the same request and index.

    Attributes:
        request_id: Of the request.
        index: Of the picture in the request.
        repeat: Which of the system's runs it is of, from 0.
        pixels: How far it is from the baseline's.
        before: The judges' scores of the baseline's.
        after: Of the system's; the baseline's where both are the same up to rounding.
    """

    request_id: str
    index: int
    repeat: int
    pixels: PixelDifference
    before: PictureScores
    after: PictureScores


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """A judge's score over the pictures that it can judge.

    Attributes:
        name: Of `SCORE_NAMES`.
        judged: Pictures it judged.
        not_judged: Pictures it could not.
        before: Mean of the baseline's pictures; None if none was judged.
        after: Of the system's.
        change: Mean of the pairs' differences: its interval is narrower than the means' own.
    """

    name: str
    judged: int
    not_judged: int
    before: Estimate | None
    after: Estimate | None
    change: Estimate | None

    @property
    def has_fallen(self) -> bool:
        """Whether the whole interval of the change is below zero."""
        return self.change is not None and self.change.high < 0


@dataclass(frozen=True, slots=True)
class ReferenceScore:
    """What a network says of the pictures: see `swiftdiff.quality.reference_metrics`.

    Attributes:
        name: What tables call it.
        before: The baseline's; None for a distance between both.
        after: The system's, or the distance.
        change: Mean of the pairs' differences; None for a distance.
    """

    name: str
    before: Estimate | None
    after: Estimate
    change: Estimate | None


@dataclass(frozen=True)
class QualityReport:
    """A system's pictures beside the baseline's.

    Attributes:
        baseline: The baseline's name.
        system: The system's.
        exactness: What it declares: ``exact`` or ``approximate``.
        pictures: Those that could be paired, in the trace's order.
        unpaired: Pictures that only one of both has, and pictures that could not be read.
        problems: A sentence for each file that could not be read or is of another size.
        notes: Why judges had nothing to say, if there is a reason for all pictures.
        references: CLIP score, LPIPS and FID, if they were asked for.
        seed: Of the bootstrap.
    """

    baseline: str
    system: str
    exactness: str
    pictures: tuple[PictureQuality, ...]
    unpaired: int = 0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    references: tuple[ReferenceScore, ...] = ()
    seed: int = 0

    @property
    def identical(self) -> int:
        """Pictures without any difference."""
        return sum(each.pixels.max_levels == 0 for each in self.pictures)

    @property
    def within_rounding(self) -> int:
        """Pictures that differ by no more than rounding explains."""
        return sum(each.pixels.max_levels <= EXACT_MAX_LEVELS for each in self.pictures)

    @property
    def max_levels(self) -> int | None:
        """Largest difference in any picture; None without pictures."""
        return max((each.pixels.max_levels for each in self.pictures), default=None)

    @property
    def worst(self) -> PictureQuality | None:
        """The picture least like the baseline's; None without pictures."""
        return min(self.pictures, key=lambda each: each.pixels.ssim, default=None)

    @cached_property
    def ssim(self) -> Estimate | None:
        """Mean structural similarity."""
        return self._mean(lambda each: each.pixels.ssim)

    @cached_property
    def mean_levels(self) -> Estimate | None:
        """Mean difference in levels."""
        return self._mean(lambda each: each.pixels.mean_levels)

    @cached_property
    def psnr_db(self) -> Estimate | None:
        """PSNR of the mean over the pictures of their mean square: one identical picture is not infinite."""
        square = self._mean(lambda each: each.pixels.mean_square)
        if square is None:
            return None
        return Estimate(psnr_db(square.value), psnr_db(square.high), psnr_db(square.low), square.count)

    @cached_property
    def scores(self) -> tuple[ScoreChange, ...]:
        """The judges' scores, one each of `SCORE_NAMES`."""
        return tuple(self._score(name) for name in SCORE_NAMES)

    def _mean(self, value: Callable[[PictureQuality], float]) -> Estimate | None:
        if not self.pictures:
            return None
        requests = [each.request_id for each in self.pictures]
        return bootstrap_mean([value(each) for each in self.pictures], self.seed, requests)

    def _score(self, name: str) -> ScoreChange:
        requests, before, after = [], [], []
        for each in self.pictures:
            old, new = getattr(each.before, name), getattr(each.after, name)
            if old is not None and new is not None:
                requests.append(each.request_id)
                before.append(old)
                after.append(new)
        skipped = len(self.pictures) - len(requests)
        if not requests:
            return ScoreChange(name, 0, skipped, None, None, None)
        changes = [new - old for old, new in zip(before, after, strict=True)]
        means = [bootstrap_mean(values, self.seed, requests) for values in (before, after, changes)]
        return ScoreChange(name, len(requests), skipped, *means)
