"""What a scene is: one to three coloured shapes on a background, and how scenes are sampled.

Lengths are fractions of the picture's side, x to the right and y down, so one scene renders at any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

Rgb = tuple[int, int, int]

SHAPES: Final = ("circle", "square", "triangle", "star", "cross", "ring")

COLOURS: Final = MappingProxyType(
    {
        "red": (214, 40, 40),
        "orange": (244, 132, 32),
        "yellow": (246, 212, 40),
        "green": (44, 160, 68),
        "cyan": (32, 190, 196),
        "blue": (38, 84, 214),
        "purple": (128, 52, 178),
        "pink": (238, 108, 172),
    }
)

BACKGROUNDS: Final = MappingProxyType(
    {
        "sand": (218, 200, 162),
        "sky": (172, 204, 230),
        "mint": (184, 222, 198),
        "lavender": (206, 196, 228),
        "slate": (98, 106, 120),
        "charcoal": (50, 52, 58),
    }
)

#: size word -> range of the radius (fraction of the side)
SIZES: Final = MappingProxyType({"small": (0.085, 0.100), "medium": (0.135, 0.155), "large": (0.200, 0.225)})

#: (colour, shape) pairs that training never sees; the model card reports them apart
HELD_OUT_PAIRS: Final = frozenset(
    {
        ("red", "star"),
        ("blue", "triangle"),
        ("green", "ring"),
        ("yellow", "cross"),
        ("purple", "circle"),
        ("orange", "square"),
    }
)

#: where a lone object stands -> its centre
POSITIONS: Final = MappingProxyType(
    {
        "in the middle": (0.50, 0.50),
        "on the left": (0.27, 0.50),
        "on the right": (0.73, 0.50),
        "at the top": (0.50, 0.27),
        "at the bottom": (0.50, 0.73),
    }
)

#: relation of the first object to the second -> direction from the second to the first
RELATIONS: Final = MappingProxyType(
    {"left of": (-1.0, 0.0), "right of": (1.0, 0.0), "above": (0.0, -1.0), "below": (0.0, 1.0)}
)

#: where the third object of three stands, under or over the other two -> the height of those and its own
THIRD_PLACES: Final = MappingProxyType({"below": (0.29, 0.73), "above": (0.71, 0.27)})


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One shape: its names, its centre and its radius (fractions of the side)."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture's content.

    `relation` is a key of POSITIONS for one object, of RELATIONS for two (the first against the second) and
    "left of" or "right of" for three, whose third object stands `third` ("below" or "above") of the pair.
    """

    objects: tuple[SceneObject, ...]
    background: str
    relation: str
    third: str | None = None


def is_held_out(scene: Scene) -> bool:
    """Whether any object is one of the colour-shape pairs that training never sees."""
    return any((item.colour, item.shape) in HELD_OUT_PAIRS for item in scene.objects)


def sample_scene(rng: np.random.Generator, *, count: int | None = None, held_out: bool = False) -> Scene:
    """Sample a scene of `count` objects (1, 2 or 3; None draws it).

    Without `held_out` no object is a held-out pair; with it, the first object always is one.
    Two objects never share colour and shape both. Objects never overlap.
    """
    number = int(rng.choice((1, 2, 3), p=(0.3, 0.45, 0.25))) if count is None else count
    names = _sample_names(rng, number, held_out)
    background = str(rng.choice(tuple(BACKGROUNDS)))
    sizes = [str(rng.choice(tuple(SIZES) if number < 3 else ("small", "medium"))) for _ in range(number)]
    radii = [float(rng.uniform(*SIZES[size])) for size in sizes]
    relation, third, centres = _place(rng, radii)
    objects = tuple(
        SceneObject(shape, colour, size, x, y, radius)
        for (colour, shape), size, (x, y), radius in zip(names, sizes, centres, radii, strict=True)
    )
    return Scene(objects, background, relation, third)


def _sample_names(rng: np.random.Generator, number: int, held_out: bool) -> list[tuple[str, str]]:
    names: list[tuple[str, str]] = []
    if held_out:
        pairs = sorted(HELD_OUT_PAIRS)
        names.append(pairs[int(rng.integers(len(pairs)))])
    while len(names) < number:
        pair = (str(rng.choice(tuple(COLOURS))), str(rng.choice(SHAPES)))
        if pair not in names and pair not in HELD_OUT_PAIRS:
            names.append(pair)
    return names


def _place(rng: np.random.Generator, radii: list[float]) -> tuple[str, str | None, list[tuple[float, float]]]:
    def jitter(amount: float) -> float:
        return float(rng.uniform(-amount, amount))

    if len(radii) == 1:
        relation = str(rng.choice(tuple(POSITIONS)))
        x, y = POSITIONS[relation]
        return relation, None, [(x + jitter(0.03), y + jitter(0.03))]
    if len(radii) == 2:
        relation = str(rng.choice(tuple(RELATIONS)))
        dx, dy = RELATIONS[relation]
        first, second = radii
        gap = max(0.06, 0.12 + jitter(0.04))  # clear background between the two
        distance = min(first + second + gap, 1.0 - 0.06 - first - second)
        centre = 0.5 + (second - first) / 2 * (dx + dy)  # of the two centres, so that the pair sits centred
        shift = jitter(0.02)
        along = (centre + shift + distance / 2, centre + shift - distance / 2)
        if dx + dy < 0:
            along = (centre + shift - distance / 2, centre + shift + distance / 2)
        across = (0.5 + jitter(0.06), 0.5 + jitter(0.06))
        if dx:
            return relation, None, [(along[0], across[0]), (along[1], across[1])]
        return relation, None, [(across[0], along[0]), (across[1], along[1])]
    relation = str(rng.choice(("left of", "right of")))
    third = str(rng.choice(tuple(THIRD_PLACES)))
    side = RELATIONS[relation][0]
    row, lone = THIRD_PLACES[third]
    spots = [(0.5 + 0.23 * side, row), (0.5 - 0.23 * side, row), (0.5, lone)]
    return relation, third, [(x + jitter(0.03), y + jitter(0.025)) for x, y in spots]
