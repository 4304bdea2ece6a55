"""Shows pictures beside the baseline's, and their differences made visible."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from swiftdiff.report.html_elements import element, text
from swiftdiff.report.page import PicturePair

_MAX_SIDE = 320  # of a picture in the page, in pixels: the files themselves lie in the runs' folders
_MAX_FACTOR = 128


def pictures(pairs: Sequence[PicturePair], baseline: str) -> str:
    """Return pairs of pictures with their differences.

    Args:
        pairs: In order.
        baseline: Label of the system that made the first of each pair.
    """
    if not pairs:
        return ""
    return element("div", "\n".join(_pair(pair, baseline) for pair in pairs), {"class": "pairs"})


def amplify(before: Image.Image, after: Image.Image) -> tuple[Image.Image, int, int]:
    """Return the difference of two pictures as a picture, what it was multiplied with, and its largest level.

    Args:
        before: One picture, RGB.
        after: Another of the same size.
    """
    difference = np.abs(np.asarray(after, np.int16) - np.asarray(before, np.int16))
    largest = int(difference.max())
    factor = max(1, min(_MAX_FACTOR, 255 // max(largest, 1)))
    return Image.fromarray((difference * factor).astype(np.uint8)), factor, largest


def _pair(pair: PicturePair, baseline: str) -> str:
    what = f"request {pair.request_id}, picture {pair.index}"
    words = f"<b>{text(pair.system)}</b>, {text(what)}"
    words += "".join(f". {text(more)}" for more in (pair.score, pair.prompt) if more)
    try:
        before, after = _read(pair.baseline), _read(pair.other)
        if before.size != after.size:
            raise OSError(f"{pair.other.name} is {after.size}, the baseline's is {before.size}")
        body = _trio(pair, baseline, what, before, after)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        body = element("p", text(f"The pictures cannot be shown: {error}"), {"class": "note"})
    return element("figure", f"<figcaption>{words}</figcaption>{body}", {"class": "pair"})


def _trio(pair: PicturePair, baseline: str, what: str, before: Image.Image, after: Image.Image) -> str:
    difference, factor, largest = amplify(before, after)
    shown = f": {pair.prompt}" if pair.prompt else ""
    difference_alt = (
        f"Difference of the two, times {factor}; at most {largest} levels of 255"
        if largest
        else "The two are identical: no difference"
    )
    cells = (
        (before, baseline, f"{baseline}'s picture of {what}{shown}"),
        (after, pair.system, f"{pair.system}'s picture of {what}{shown}"),
        (difference, f"difference × {factor}" if largest else "no difference", difference_alt),
    )
    return element("div", "".join(_cell(*cell) for cell in cells), {"class": "trio"})


def _cell(picture: Image.Image, label: str, alt: str) -> str:
    shrunk = picture.copy()
    shrunk.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    shrunk.save(data, format="PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
    width, height = shrunk.size
    return f'<div><img src="{source}" width="{width}" height="{height}" alt="{text(alt)}">{text(label)}</div>'


def _read(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")
