"""Judges whether a picture shows what its caption says, by its pixels alone.

A caption names each object's colour, shape and size, where objects stand and the background; exact places are
free. Found objects are assigned to named ones so that most agrees, and place weighs more than colour, so that
colours swapped between two objects are two wrong colours and not one wrong place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swiftdiff.scenes import SIZES, Scene, SceneObject
from swiftdiff.scenes.scene import POSITIONS, RELATIONS

from .segmentation import segment
from .shape_fit import MIN_OVERLAP, fit_shapes

Image8 = NDArray[np.uint8]

#: what an agreement weighs in the assignment; a place counts once for every object that stands right
_COLOUR_WEIGHT: Final = 1.0
_SHAPE_WEIGHT: Final = 1.0
_SIZE_WEIGHT: Final = 0.5
_PLACE_WEIGHT: Final = 1.1

_POSITION_REACH: Final = (
    0.14  # of a lone object's centre from where it is said to stand; the next is 0.23 off
)
_THIRD_GAP: Final = 0.08  # how far the third of three must stand beyond both others
_LARGEST_MATCHED: Final = 5  # of the found objects; the rest only count as extra ones


@dataclass(frozen=True, slots=True)
class FoundObject:
    """An object seen in a picture; names are None where nothing fits, lengths are fractions of the side."""

    colour: str | None
    shape: str | None
    size: str | None
    x: float
    y: float
    radius: float
    overlap: float


@dataclass(frozen=True, slots=True)
class Reading:
    """All that was seen in a picture: the background and the objects, largest first."""

    background: str | None
    objects: tuple[FoundObject, ...]


@dataclass(frozen=True, slots=True)
class ObjectJudgement:
    """Which of one named object's attributes the picture shows; all False if the object is missing."""

    found: FoundObject | None
    colour_right: bool
    shape_right: bool
    size_right: bool


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a picture gets right of its caption. `objects` follows the caption's order.

    `relation_right`: all objects stand as the caption says (False if one is missing). `count_right`: as many
    objects as named, neither missing nor extra.
    """

    objects: tuple[ObjectJudgement, ...]
    relation_right: bool
    background_right: bool
    count_right: bool

    @property
    def all_right(self) -> bool:
        """Whether the picture shows all of its caption and nothing else."""
        return (
            self.relation_right
            and self.background_right
            and self.count_right
            and all(item.colour_right and item.shape_right and item.size_right for item in self.objects)
        )


def size_name(radius: float) -> str | None:
    """Name of the size class nearest to a radius (fraction of the side); None if far too small or large."""
    bounds = list(SIZES.values())
    if not 0.75 * bounds[0][0] <= radius <= 1.25 * bounds[-1][1]:
        return None
    names = list(SIZES)
    for name, (_, high), (low, _) in zip(names, bounds, bounds[1:], strict=False):
        if radius < (high + low) / 2:
            return name
    return names[-1]


def read_picture(image: Image8) -> Reading:
    """Read the background and the objects off a picture, uint8 [S, S, 3]."""
    side = image.shape[0]
    seen = segment(image)
    objects = []
    for region in seen.regions:
        fit = fit_shapes(region.mask)[0]
        shape = fit.shape if fit.overlap >= MIN_OVERLAP else None
        radius = fit.radius / side
        objects.append(
            FoundObject(
                region.colour, shape, size_name(radius), fit.x / side, fit.y / side, radius, fit.overlap
            )
        )
    return Reading(seen.background, tuple(objects))


def judge(image: Image8, scene: Scene) -> Judgement:
    """Judge a picture, uint8 [S, S, 3], against the names in the scene that its caption describes."""
    return judge_reading(read_picture(image), scene)


def judge_reading(reading: Reading, scene: Scene) -> Judgement:
    """Judge what was read off a picture against the names in a scene."""
    named = scene.objects
    seen: list[FoundObject | None] = list(reading.objects[:_LARGEST_MATCHED])
    seen += [None] * max(0, len(named) - len(seen))
    assignment = max(permutations(seen, len(named)), key=lambda chosen: _agreement(named, chosen, scene))
    return Judgement(
        objects=tuple(_judge_object(item, found) for item, found in zip(named, assignment, strict=True)),
        relation_right=all(_stand_right(scene, assignment)),
        background_right=reading.background == scene.background,
        count_right=len(reading.objects) == len(named),
    )


def _judge_object(named: SceneObject, found: FoundObject | None) -> ObjectJudgement:
    if found is None:
        return ObjectJudgement(None, False, False, False)
    return ObjectJudgement(
        found, found.colour == named.colour, found.shape == named.shape, found.size == named.size
    )


def _agreement(named: Sequence[SceneObject], chosen: Sequence[FoundObject | None], scene: Scene) -> float:
    total = _PLACE_WEIGHT * sum(_stand_right(scene, chosen))
    for item, found in zip(named, chosen, strict=True):
        judged = _judge_object(item, found)
        total += _COLOUR_WEIGHT * judged.colour_right
        total += _SHAPE_WEIGHT * judged.shape_right
        total += _SIZE_WEIGHT * judged.size_right
    return total


def _stand_right(scene: Scene, chosen: Sequence[FoundObject | None]) -> list[bool]:
    """For each named object, whether the one chosen for it stands where the caption says.

    What has neither the colour nor the shape of the named object is another object, and its place proves
    nothing: otherwise a picture full of blobs would have most relations right.
    """
    chosen = [
        found if found is not None and (found.colour == item.colour or found.shape == item.shape) else None
        for item, found in zip(scene.objects, chosen, strict=True)
    ]
    first = chosen[0]
    if len(chosen) == 1:
        return [first is not None and _position_name(first) == scene.relation]
    second = chosen[1]
    pair = first is not None and second is not None and _holds(scene.relation, first, second)
    if len(chosen) == 2:
        return [pair, pair]
    return [pair, pair, _third_stands_right(scene, chosen)]


def _position_name(found: FoundObject) -> str | None:
    distances = {name: float(np.hypot(found.x - x, found.y - y)) for name, (x, y) in POSITIONS.items()}
    nearest = min(distances, key=lambda name: distances[name])
    return nearest if distances[nearest] <= _POSITION_REACH else None


def _holds(relation: str, first: FoundObject, second: FoundObject) -> bool:
    """Whether the first stands within 45 degrees of the relation's direction, seen from the second."""
    dx, dy = first.x - second.x, first.y - second.y
    towards_x, towards_y = RELATIONS[relation]
    along = dx * towards_x + dy * towards_y
    return along > abs(dx * towards_y) + abs(dy * towards_x)


def _third_stands_right(scene: Scene, chosen: Sequence[FoundObject | None]) -> bool:
    heights = [found.y for found in chosen if found is not None]
    if len(heights) < len(chosen):
        return False
    if scene.third == "below":
        return heights[2] > max(heights[:2]) + _THIRD_GAP
    return heights[2] < min(heights[:2]) - _THIRD_GAP
