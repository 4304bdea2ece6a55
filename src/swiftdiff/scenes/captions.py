"""The language of scenes: a caption from a scene, and the scene's names back from a canonical caption."""

from __future__ import annotations

import re

import numpy as np

from .scene import BACKGROUNDS, COLOURS, POSITIONS, RELATIONS, SHAPES, SIZES, THIRD_PLACES, Scene, SceneObject

_SYNONYMS = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge"), "medium": ("medium",)}
_RELATION_WORDS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
#: how often varied wording leaves a detail out, so that short prompts work as well
_OMIT = 0.06


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """Caption a scene: canonical without `rng`, with varied wording and omissions with it.

    Canonical: "a large red circle above a small blue square on a sand background".
    """
    names = [_noun(item, rng) for item in scene.objects]
    if len(names) == 1:
        where = "" if rng is not None and rng.random() < _OMIT else f" {scene.relation}"
        text = f"{names[0]}{where}"
    else:
        words = _RELATION_WORDS[scene.relation]
        relation = words[0] if rng is None else words[int(rng.random() < 0.2)]
        text = f"{names[0]} {relation} {names[1]}"
        if scene.third is not None:
            text += f", with {names[2]} {scene.third},"
    if rng is not None and rng.random() < _OMIT:
        return text.rstrip(",")
    return f"{text} on a {scene.background} background"


def _noun(item: SceneObject, rng: np.random.Generator | None) -> str:
    if rng is None:
        return f"a {item.size} {item.colour} {item.shape}"
    if rng.random() < _OMIT:
        return f"a {item.colour} {item.shape}"
    words = _SYNONYMS[item.size]
    size = words[0] if rng.random() < 0.7 else words[int(rng.integers(len(words)))]
    return f"a {size} {item.colour} {item.shape}"


_NOUN = re.compile(rf"a ({'|'.join(SIZES)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})")
_BACKGROUND = re.compile(rf"on an? ({'|'.join(BACKGROUNDS)}) background")


def parse_caption(text: str) -> Scene | None:
    """Read a canonical caption back; None if the text is anything else.

    Centres are the nominal ones and radii the middle of the size's range: captions do not say more.
    """
    nouns = _NOUN.findall(text)
    ground = _BACKGROUND.search(text)
    if not nouns or ground is None or len(nouns) > 3:
        return None
    third: str | None = None
    if len(nouns) == 1:
        relation = next((word for word in POSITIONS if word in text), None)
        centres = [POSITIONS[relation]] if relation else []
    else:
        relation = next((word for word in RELATIONS if f" {word} a " in text), None)
        dx, dy = RELATIONS[relation] if relation else (0.0, 0.0)
        centres = [(0.5 + 0.24 * dx, 0.5 + 0.24 * dy), (0.5 - 0.24 * dx, 0.5 - 0.24 * dy)]
        if len(nouns) == 3:
            third = "below" if " below, on" in text else "above"
            row, lone = THIRD_PLACES[third]
            centres = [(x, row) for x, _ in centres] + [(0.5, lone)]
    if relation is None:
        return None
    objects = tuple(
        SceneObject(shape, colour, size, x, y, sum(SIZES[size]) / 2)
        for (size, colour, shape), (x, y) in zip(nouns, centres, strict=True)
    )
    scene = Scene(objects, ground.group(1), relation, third)
    return scene if caption(scene) == text else None
