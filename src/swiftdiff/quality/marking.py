"""Judges a batch of drawn pictures in every way that applies to their set, as records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from swiftdiff.scenes import Scene, control_from_scene, render_style

from .adherence import control_adherence
from .attributes import ObjectJudgement, judge
from .plan import BASE, PictureSet, Sample
from .records import ObjectMarks, PictureRecord
from .style_classifier import style_classifier
from .styled_content import StyledObject, judge_styled

Image8 = NDArray[np.uint8]

#: so many of the base's pictures are measured against control images that they never saw: the floor
_FLOOR_PICTURES: Final = 50


@dataclass(frozen=True, slots=True)
class Drawn:
    """A sample's picture, uint8 [S, S, 3], and its file."""

    sample: Sample
    image: Image8
    place: str


def judge_batch(
    picture_set: PictureSet, kinds: Sequence[str], key: str, batch: Sequence[Drawn]
) -> list[PictureRecord]:
    """Judge pictures of one set; `kinds` of control images are measured, `key` says how they were drawn."""
    classifier = style_classifier()
    chances = classifier.probabilities([drawn.image for drawn in batch])
    return [
        PictureRecord(
            key=key,
            set=picture_set.name,
            index=drawn.sample.index,
            seed=drawn.sample.seed,
            prompt=drawn.sample.prompt,
            picture=drawn.place,
            adherence=_adherence(picture_set, kinds, drawn),
            style=classifier.names[int(chance.argmax())],
            style_probability=round(float(chance.max()), 5),
            **(_styled_marks(drawn, picture_set.lora) if picture_set.lora else _plain_marks(drawn)),
        )
        for drawn, chance in zip(batch, chances, strict=True)
    ]


def _plain_marks(drawn: Drawn) -> dict[str, Any]:
    judgement = judge(drawn.image, drawn.sample.scene)
    return {
        "objects": _marks(drawn.sample.scene, judgement.objects),
        "relation_right": judgement.relation_right,
        "background_right": judgement.background_right,
        "count_right": judgement.count_right,
        "all_right": judgement.all_right,
    }


def _styled_marks(drawn: Drawn, style: str) -> dict[str, Any]:
    scene, side = drawn.sample.scene, drawn.image.shape[0]
    judged = judge_styled(drawn.image, scene, style)
    best = judge_styled(render_style(style, [scene], side)[0], scene, style)
    are_there = all(item.is_there for item in judged)
    return {
        "objects": _marks(scene, judged),
        "relation_right": are_there,
        "background_right": None,
        "count_right": None,
        "all_right": are_there
        and all(item.shape_right and item.size_right and item.colour_right is not False for item in judged),
        "rendered_objects": _marks(scene, best),
    }


def _marks(scene: Scene, judged: Sequence[ObjectJudgement | StyledObject]) -> tuple[ObjectMarks, ...]:
    return tuple(
        ObjectMarks(
            colour=item.colour,
            shape=item.shape,
            size=item.size,
            colour_right=seen.colour_right,
            shape_right=seen.shape_right,
            size_right=seen.size_right,
        )
        for item, seen in zip(scene.objects, judged, strict=True)
    )


def _adherence(picture_set: PictureSet, kinds: Sequence[str], drawn: Drawn) -> dict[str, float]:
    """Against the set's own kind of control image, or for the base (as the floor) against all kinds."""
    if picture_set.controlnet:
        kinds = (picture_set.controlnet,)
    elif picture_set.name != BASE or drawn.sample.index >= _FLOOR_PICTURES:
        kinds = ()
    measured = {}
    for kind in kinds:
        control = control_from_scene(kind, drawn.sample.scene, drawn.image.shape[0])
        measured[kind] = round(control_adherence(kind, drawn.image, control), 5)
    return measured
