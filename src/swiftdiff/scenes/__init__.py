"""The synthetic world that the embedded model draws: scenes, captions, pictures, styles, control images."""

from .captions import caption, parse_caption
from .control import (
    CONTROL_KINDS,
    control_from_image,
    control_from_scene,
    depth_from_image,
    depth_from_scene,
    edges_from_image,
    layout_from_image,
    layout_from_scene,
)
from .render import render
from .scene import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT_PAIRS,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    sample_scene,
)
from .styles import STYLES, render_style

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "CONTROL_KINDS",
    "HELD_OUT_PAIRS",
    "SHAPES",
    "SIZES",
    "STYLES",
    "Scene",
    "SceneObject",
    "caption",
    "control_from_image",
    "control_from_scene",
    "depth_from_image",
    "depth_from_scene",
    "edges_from_image",
    "layout_from_image",
    "layout_from_scene",
    "parse_caption",
    "render",
    "render_style",
    "sample_scene",
]
