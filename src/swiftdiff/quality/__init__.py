"""Judges pictures by their pixels, attributes, control adherence and style, and evaluates a model family."""

from .adherence import MEASURE_NAMES, control_adherence, depth_overlap, edge_f1, layout_agreement
from .attributes import (
    FoundObject,
    Judgement,
    ObjectJudgement,
    Reading,
    judge,
    judge_reading,
    read_picture,
)
from .style_classifier import STYLE_NAMES, StyleClassifier, style_classifier

__all__ = [
    "MEASURE_NAMES",
    "STYLE_NAMES",
    "FoundObject",
    "Judgement",
    "ObjectJudgement",
    "Reading",
    "StyleClassifier",
    "control_adherence",
    "depth_overlap",
    "edge_f1",
    "judge",
    "judge_reading",
    "layout_agreement",
    "read_picture",
    "style_classifier",
]
