"""The style classifier must know rendered styles that it has not seen, worn as a network might draw them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from swiftdiff.quality.style_classifier import (
    STYLE_NAMES,
    StyleClassifier,
    render_named_style,
    style_classifier,
)
from swiftdiff.scenes import sample_scene


@pytest.fixture(scope="module")
def classifier() -> StyleClassifier:
    return style_classifier()


def _blurred_and_noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    picture = ndimage.gaussian_filter(image.astype(np.float32), (0.7, 0.7, 0))
    return np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("is_worn", [False, True])
def test_styles_of_unseen_scenes_are_recognised(classifier: StyleClassifier, is_worn: bool) -> None:
    rng = np.random.default_rng(77)
    right = []
    for name in STYLE_NAMES:
        scenes = [sample_scene(rng, held_out=index % 3 == 0) for index in range(24)]
        images = list(render_named_style(name, scenes))
        if is_worn:
            images = [_blurred_and_noisy(image, rng) for image in images]
        right += [found == name for found in classifier.classify(images)]
    assert np.mean(right) >= 0.995


def test_the_same_seed_trains_the_same_classifier() -> None:
    first, second = (style_classifier.__wrapped__(pictures_per_style=6) for _ in range(2))
    assert np.array_equal(first.weights, second.weights)


def test_probabilities_sum_to_one(classifier: StyleClassifier) -> None:
    images = render_named_style("gold", [sample_scene(np.random.default_rng(0))])
    assert classifier.probabilities(list(images)).sum() == pytest.approx(1)
