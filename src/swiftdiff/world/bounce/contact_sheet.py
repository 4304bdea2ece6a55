"""Draws clips for a person to judge: what is true above, what was generated below."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .measure import Pictures

_SCALE = 3
_GAP = 3
_SIDE = 64  # for what stands beside the pictures
_TITLE = 20
_INK, _PAPER = "#1b1f24", "#ffffff"


@dataclass(frozen=True, eq=False)
class Pair:
    """A clip.

    Attributes:
        title: What is known of it.
        truth: Its true pictures, uint8 [frames, H, W, 3].
        made: Those that were generated.
    """

    title: str
    truth: Pictures
    made: Pictures


@dataclass(frozen=True, eq=False)
class Sheet:
    """Clips to be shown together.

    Attributes:
        name: Of the file, without suffix.
        frames: Which of their frames.
        pairs: The clips, at least one.
    """

    name: str
    frames: tuple[int, ...]
    pairs: tuple[Pair, ...]


def draw_sheet(sheet: Sheet) -> bytes:
    """Return a sheet as PNG, a column a frame."""
    height, width = (side * _SCALE + _GAP for side in sheet.pairs[0].truth.shape[1:3])
    each = _TITLE + 2 * height + 2 * _GAP
    page = Image.new("RGB", (_SIDE + len(sheet.frames) * width, _TITLE + len(sheet.pairs) * each), _PAPER)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(13)
    draw.text((2, 2), "frame", _INK, font)
    for column, frame in enumerate(sheet.frames):
        draw.text((_SIDE + column * width, 2), str(frame), _INK, font)
    for number, pair in enumerate(sheet.pairs):
        top = _TITLE + number * each
        draw.text((2, top + 2), pair.title, _INK, font)
        for row, (what, clip) in enumerate((("true", pair.truth), ("made", pair.made))):
            at = top + _TITLE + row * height
            draw.text((2, at + height // 2 - 8), what, _INK, font)
            page.paste(_strip(clip, sheet.frames), (_SIDE, at))
    data = io.BytesIO()
    page.save(data, format="PNG", optimize=True)
    return data.getvalue()


def _strip(clip: Pictures, frames: Sequence[int]) -> Image.Image:
    """Return frames side by side, enlarged so that a pixel is a square."""
    shown: NDArray[np.uint8] = clip[list(frames)].repeat(_SCALE, 1).repeat(_SCALE, 2)
    padded = np.pad(shown, ((0, 0), (0, 0), (0, _GAP), (0, 0)), constant_values=255)
    return Image.fromarray(np.concatenate(list(padded), axis=1))
