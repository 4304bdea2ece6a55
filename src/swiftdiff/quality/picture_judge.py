"""Scores one picture against what its request asked for, as far as the judges can tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from swiftdiff.scenes import CONTROL_KINDS, STYLES, Scene

from .adherence import control_adherence
from .attributes import judge
from .style_classifier import style_classifier
from .styled_content import judge_styled

Image8 = NDArray[np.uint8]

#: the judges look at squares whose side is a multiple of this
_SIDE: Final = 64
_MIN_SCALE: Final = 1e-6  # a LoRA or ControlNet below it does nothing


@dataclass(frozen=True)
class Expectation:
    """What a picture should show; made by `expect`.

    Attributes:
        scene: What its caption says; None if the prompt is no canonical caption.
        controls: Kind of control image and the image, uint8 [H, W, 3].
        styles: The styles of its LoRAs.
        has_foreign_lora: Whether it also has a LoRA of another kind, which may change anything.
    """

    scene: Scene | None = None
    controls: tuple[tuple[str, Image8], ...] = ()
    styles: tuple[str, ...] = ()
    has_foreign_lora: bool = False


def expect(
    scene: Scene | None,
    controlnets: Iterable[tuple[str, float, Image8 | None]] = (),
    loras: Iterable[tuple[str, float]] = (),
) -> Expectation:
    """What a picture should show.

    Args:
        scene: What its caption says, see `swiftdiff.scenes.parse_caption`.
        controlnets: Id of the weights, scale and control image (None if it cannot be read).
        loras: Id of the weights, and scale.
    """
    active = [name for name, scale in loras if abs(scale) > _MIN_SCALE]
    return Expectation(
        scene=scene,
        controls=tuple(
            (kind, image)
            for kind, scale, image in controlnets
            if kind in CONTROL_KINDS and image is not None and scale > _MIN_SCALE
        ),
        styles=tuple(name for name in active if name in STYLES),
        has_foreign_lora=any(name not in STYLES for name in active),
    )


@dataclass(frozen=True, slots=True)
class PictureScores:
    """Scores from 0 to 1; None where a judge has nothing to say.

    Attributes:
        attributes: Share of what the caption says that the picture shows; in a style, of what can be seen in
            it. Not judged with several styles, or with a LoRA that is no style.
        adherence: How well it follows its control images, the mean over them. Not judged with LoRAs: a style
            changes the colours and lines that the measures look at.
        style: Probability that it is in one of the styles of its LoRAs.
    """

    attributes: float | None = None
    adherence: float | None = None
    style: float | None = None


#: the scores of `PictureScores`, and what tables call them
SCORE_NAMES: Final = {
    "attributes": "attribute score",
    "adherence": "control adherence",
    "style": "style score",
}


@dataclass
class PictureJudge:
    """Scores pictures, each once: the same picture of the same request has the same scores in every run."""

    _known: dict[str, PictureScores] = field(default_factory=dict)

    def score(self, image: Image8, expected: Expectation) -> PictureScores:
        """Score a picture, uint8 [H, W, 3]; one that is no square of a multiple of 64 is not judged."""
        side = image.shape[0]
        if image.shape[1] != side or side % _SIDE:
            return PictureScores()
        key = _digest(image, expected)
        if key not in self._known:
            self._known[key] = PictureScores(
                attributes=_attributes(image, expected),
                adherence=_adherence(image, expected),
                style=_style(image, expected),
            )
        return self._known[key]


def _digest(image: Image8, expected: Expectation) -> str:
    digest = sha256(image.tobytes())
    digest.update(repr((image.shape, expected.scene, expected.styles, expected.has_foreign_lora)).encode())
    for kind, control in expected.controls:
        digest.update(kind.encode() + control.tobytes())
    return digest.hexdigest()


def _attributes(image: Image8, expected: Expectation) -> float | None:
    scene = expected.scene
    if scene is None or expected.has_foreign_lora or len(expected.styles) > 1:
        return None
    if expected.styles:
        return float(np.mean(_styled_answers(image, scene, expected.styles[0])))
    judgement = judge(image, scene)
    answers = [judgement.relation_right, judgement.background_right, judgement.count_right]
    for item in judgement.objects:
        answers += [item.colour_right, item.shape_right, item.size_right]
    return float(np.mean(answers))


def _styled_answers(image: Image8, scene: Scene, style: str) -> list[bool]:
    answers = []
    for item in judge_styled(image, scene, style):
        answers += [item.is_there, item.shape_right, item.size_right]
        answers += [] if item.colour_right is None else [item.colour_right]
    return answers


def _adherence(image: Image8, expected: Expectation) -> float | None:
    if not expected.controls or expected.styles or expected.has_foreign_lora:
        return None
    found = [
        control_adherence(kind, image, _fitted(kind, control, image)) for kind, control in expected.controls
    ]
    return float(np.mean(found))


def _fitted(kind: str, control: Image8, image: Image8) -> Image8:
    """The control image at the picture's size; a layout's colours are names, which must not be blended."""
    if control.shape == image.shape:
        return control
    how = Image.Resampling.NEAREST if kind == "layout" else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(control).resize((image.shape[1], image.shape[0]), how))


def _style(image: Image8, expected: Expectation) -> float | None:
    if not expected.styles:
        return None
    classifier = style_classifier()
    chances = classifier.probabilities([image])[0]
    return float(sum(chances[classifier.names.index(name)] for name in set(expected.styles)))
