"""The eight styles that the shipped LoRAs learn, each drawn from a scene's geometry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np

from .render import Floats, Geometry, Image8, blend, geometry, shade, to_uint8
from .scene import Scene


def _rgb(*values: int) -> Floats:
    return np.array(values, np.float32) / 255


def _nearest_distance(fields: Geometry) -> Floats:
    return np.asarray(np.minimum(fields.distance.min(1), fields.side), np.float32)


def _grey(picture: Floats) -> Floats:
    grey = picture @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.asarray(grey, np.float32)


def _pixel_grid(fields: Geometry) -> tuple[Floats, Floats]:
    axis = np.arange(fields.side, dtype=np.float32) * (128 / fields.side)
    return axis[None, :, None], axis[None, None, :]  # rows, columns in 128ths of the side


def _neon(fields: Geometry) -> Floats:
    """Glowing outlines in each object's colour on near-black."""
    side = fields.side
    picture = np.broadcast_to(
        fields.background[:, None, None, :] * np.float32(0.10), (len(fields.radius), side, side, 3)
    )
    for slot in range(3):
        away = np.abs(fields.distance[:, slot]) * np.float32(128 / side)
        glow = np.exp(-away / 7) * np.float32(0.55)
        core = np.clip(2.2 - away, 0, 1)
        colour = fields.colour[:, slot, None, None, :]
        picture = picture + colour * glow[..., None]
        picture = blend(picture, colour * np.float32(0.45) + np.float32(0.55), core)
    return picture


def _waves(rows: Floats, columns: Floats, seeds: Floats) -> Floats:
    """Smooth blotches in -1..1, [N, S, S]; `seeds` [N] shifts them."""
    phase = seeds[:, None, None]
    return (
        np.sin(rows / 9 + columns / 15 + phase)
        + np.sin(columns / 8 - rows / 17 + 1.7 * phase)
        + np.sin((rows + columns) / 11 + 2.9 * phase)
    ) / np.float32(3)


def _watercolour(fields: Geometry) -> Floats:
    """Pale washes on paper, blotchy, darker where the paint dried at the rim."""
    rows, columns = _pixel_grid(fields)
    seeds = fields.radius.sum(1) * 10
    blotch = _waves(rows, columns, seeds)
    paper = _rgb(250, 247, 238)
    wash = (0.30 + 0.16 * blotch)[..., None] * np.ones(3, np.float32)
    picture = paper + (fields.background[:, None, None, :] - paper) * wash
    for slot in range(3):
        wobble = fields.distance[:, slot] + blotch * np.float32(1.6 * fields.side / 128)
        inside = np.clip(0.5 - wobble * 0.6, 0, 1)
        rim = np.exp(-np.abs(wobble + 2) * np.float32(128 / fields.side) / 1.6) * 0.35
        paint = (0.52 + 0.16 * blotch + rim)[..., None]
        body = paper + (fields.colour[:, slot, None, None, :] - paper) * paint
        picture = blend(picture, body, inside)
    return picture


def _blueprint(fields: Geometry) -> Floats:
    """White outlines and a fine grid on blue."""
    rows, columns = _pixel_grid(fields)
    grid = ((rows % 16) < 1.5) | ((columns % 16) < 1.5)
    picture = blend(
        np.broadcast_to(_rgb(28, 74, 150), (len(fields.radius), fields.side, fields.side, 3)),
        _rgb(96, 140, 205),
        np.broadcast_to(grid, fields.distance[:, 0].shape).astype(np.float32) * np.float32(0.8),
    )
    away = np.abs(fields.distance).min(1) * np.float32(128 / fields.side)
    inside = np.clip(0.5 - _nearest_distance(fields), 0, 1) * np.float32(0.22)
    return blend(blend(picture, _rgb(140, 180, 230), inside), _rgb(244, 248, 255), np.clip(2.3 - away, 0, 1))


def _pixel(fields: Geometry) -> Floats:
    """Blocks of an eighth of the side's sixteenth: a picture from an early console."""
    plain = shade(fields)
    block = max(1, fields.side // 16)
    number, side = len(plain), fields.side
    coarse = plain.reshape(number, side // block, block, side // block, block, 3).mean((2, 4))
    coarse = np.round(coarse * 5) / np.float32(5)
    picture = coarse.repeat(block, 1).repeat(block, 2)
    edge = np.arange(side) % block == 0
    lines = np.where(edge[:, None] | edge, np.float32(0.86), np.float32(1.0))
    return np.asarray(picture * lines[None, :, :, None])


def _stripes(fields: Geometry) -> Floats:
    """Everything printed in diagonal bands, objects the other way than the ground."""
    rows, columns = _pixel_grid(fields)
    picture = np.broadcast_to(
        fields.background[:, None, None, :], (len(fields.radius), fields.side, fields.side, 3)
    ).astype(np.float32)
    down = 0.5 + 0.5 * np.clip(np.sin((rows + columns) * np.float32(2 * np.pi / 18)) * 3, -1, 1)
    up = 0.5 + 0.5 * np.clip(np.sin((rows - columns) * np.float32(2 * np.pi / 14)) * 3, -1, 1)
    picture = blend(picture, picture * np.float32(0.72), np.broadcast_to(down, fields.distance[:, 0].shape))
    for slot in range(3):
        colour = np.broadcast_to(fields.colour[:, slot, None, None, :], picture.shape)
        body = blend(
            colour,
            np.float32(0.12) * colour + np.float32(0.88),
            np.broadcast_to(up, fields.distance[:, 0].shape),
        )
        picture = blend(picture, body, fields.coverage[:, slot])
    return picture


def _gold(fields: Geometry) -> Floats:
    """Embossed gold on dark brown; colours turn into tones of metal."""
    side = fields.side
    rows, columns = _pixel_grid(fields)
    sheen = np.sin((rows + columns) / 13) * 0.07
    ground = _rgb(44, 27, 14) + _rgb(60, 42, 20) * (0.5 + sheen * 4 - rows / 256)[..., None]
    picture = np.broadcast_to(ground, (len(fields.radius), side, side, 3)).astype(np.float32)
    for slot in range(3):
        depth = np.clip(-fields.distance[:, slot] * np.float32(128 / side) / 7, 0, 1)
        dy, dx = np.gradient(depth, axis=(1, 2))
        slope = (dx + dy) * np.float32(side / 128)
        tone = np.clip(
            0.62 + 1.9 * slope + sheen + 0.12 * (_grey(fields.colour[:, slot]) - 0.5)[:, None, None], 0, 1
        )
        dark, bright = _rgb(126, 78, 16), _rgb(255, 226, 122)
        picture = blend(picture, dark + (bright - dark) * tone[..., None], fields.coverage[:, slot])
    return picture


def _sketch(fields: Geometry) -> Floats:
    """Pencil on white paper: outlines and hatching, darker for darker colours."""
    rows, columns = _pixel_grid(fields)
    paper = np.full(fields.distance[:, 0].shape, 0.97, np.float32)
    hatch = np.clip(np.sin((rows * 0.9 + columns) * np.float32(2 * np.pi / 9)) * 2, 0, 1)
    for slot in range(3):
        dark = 0.35 + 0.55 * (1 - _grey(fields.colour[:, slot]))[:, None, None]
        paper = paper - fields.coverage[:, slot] * (hatch * dark * 0.55 + 0.06).astype(np.float32)
        away = np.abs(fields.distance[:, slot]) * np.float32(128 / fields.side)
        paper = np.minimum(paper, 1 - np.clip(2.0 - away, 0, 1) * np.float32(0.8))
    return np.repeat(paper[..., None], 3, -1)


def _night(fields: Geometry) -> Floats:
    """Moonlight: dark blue, a moon in the corner, objects dim and lit from its side."""
    rows, columns = _pixel_grid(fields)
    dim = shade(fields) * _rgb(70, 92, 150) + _rgb(4, 7, 22)
    reach = np.hypot(rows - 14, columns - 112)
    glow = np.exp(-reach / 42)[..., None] * _rgb(120, 130, 150)
    moon = np.broadcast_to(np.clip(8.5 - reach, 0, 1), fields.distance[:, 0].shape)
    free = np.clip(_nearest_distance(fields) + 0.5, 0, 1)
    return blend(dim + glow * (0.35 + 0.65 * free[..., None]), _rgb(250, 246, 214), moon * free)


#: style name -> drawing of a batch, [N, S, S, 3] in 0..1
STYLES: Final[MappingProxyType[str, Callable[[Geometry], Floats]]] = MappingProxyType(
    {
        "neon": _neon,
        "watercolour": _watercolour,
        "blueprint": _blueprint,
        "pixel": _pixel,
        "stripes": _stripes,
        "gold": _gold,
        "sketch": _sketch,
        "night": _night,
    }
)


def render_style(style: str, scenes: Sequence[Scene], side: int = 128) -> Image8:
    """Render scenes in one of STYLES, uint8 [N, side, side, 3]."""
    return to_uint8(STYLES[style](geometry(scenes, side)))
