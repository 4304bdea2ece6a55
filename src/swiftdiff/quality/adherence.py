"""Measures how well a picture follows its control image, for each kind of shipped ControlNet."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from swiftdiff.errors import ModelError
from swiftdiff.scenes import depth_from_image, edges_from_image
from swiftdiff.scenes.control import nearest_palette_index

Image8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]

#: depth at which an object stands out of the ground; the ground stays below 0.30, domes begin at 0.55
_NEAR: Final = 0.43


def edge_f1(picture: Image8, control: Image8, tolerance_px: float = 2.0) -> float:
    """F1 of the picture's edges against a control image of edges, both uint8 [H, W, 3].

    An edge pixel is right when the other image has one within `tolerance_px`. 1 if neither has any edge.
    """
    drawn = edges_from_image(picture)[..., 0] > 127
    wanted = control[..., 0] > 127
    if not drawn.any() or not wanted.any():
        return float(drawn.any() == wanted.any())
    precision = _share_near(drawn, wanted, tolerance_px)
    recall = _share_near(wanted, drawn, tolerance_px)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _share_near(points: Mask, targets: Mask, tolerance_px: float) -> float:
    away = ndimage.distance_transform_edt(~targets)
    return float((away[points] <= tolerance_px).mean())


def depth_overlap(picture: Image8, control: Image8) -> float:
    """Intersection over union of what stands out in a picture's depth and in a control image of depth."""
    drawn = depth_from_image(picture)[..., 0] > 255 * _NEAR
    wanted = control[..., 0] > 255 * _NEAR
    union = (drawn | wanted).sum()
    return float((drawn & wanted).sum() / union) if union else 1.0


def layout_agreement(picture: Image8, control: Image8) -> float:
    """Mean, over the colour regions of a layout, of the share of each region's pixels that have its colour.

    Every region counts alike, so a background cannot hide a missing object. One pixel along the outlines is
    left out, because anti-aliasing blends colours there.
    """
    wanted = nearest_palette_index(control)
    drawn = ndimage.median_filter(nearest_palette_index(picture), size=3)
    shares = []
    for name in np.unique(wanted):
        region = wanted == name
        inside = ndimage.binary_erosion(region, border_value=1)
        inside = inside if inside.any() else region
        shares.append(float((drawn[inside] == name).mean()))
    return float(np.mean(shares))


_MEASURES: Final[MappingProxyType[str, Callable[[Image8, Image8], float]]] = MappingProxyType(
    {"edges": edge_f1, "depth": depth_overlap, "layout": layout_agreement}
)
#: kind of control image -> name of its measure in tables
MEASURE_NAMES: Final = MappingProxyType({"edges": "edge F1", "depth": "depth IoU", "layout": "layout share"})


def control_adherence(kind: str, picture: Image8, control: Image8) -> float:
    """How well a picture follows a control image of one kind, 0..1; both uint8 [H, W, 3].

    Raises:
        ModelError: There is no measure for this kind of control image.
    """
    if kind not in _MEASURES:
        raise ModelError.for_field("control kind", kind, f"one of {', '.join(_MEASURES)}")
    return _MEASURES[kind](picture, control)
