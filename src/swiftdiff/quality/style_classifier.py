"""Recognises the style of a picture: a linear classifier that trains on rendered pictures in seconds.

Nothing is shipped: the same seed renders the same pictures and gives the same classifier. Training pictures
are blurred, noised, shifted and recoloured, so that what a network drew is judged like what was rendered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize, special

from swiftdiff.scenes import STYLES, Scene, render, render_style, sample_scene

from .style_features import describe

Floats = NDArray[np.float64]
Image8 = NDArray[np.uint8]

#: the class of pictures in no style
PLAIN: Final = "plain"
STYLE_NAMES: Final = (PLAIN, *STYLES)


@dataclass(frozen=True, slots=True)
class StyleClassifier:
    """A multinomial regression on standardised features; `weights` [F + 1, K], the last row the bias."""

    names: tuple[str, ...]
    mean: Floats
    scale: Floats
    weights: Floats

    def probabilities(self, images: Sequence[Image8]) -> Floats:
        """Probability of each style in `names` for each picture, [N, K]."""
        features = np.stack([describe(image) for image in images])
        return _probabilities((features - self.mean) / self.scale, self.weights)

    def classify(self, images: Sequence[Image8]) -> list[str]:
        """The likeliest style of each picture, uint8 [H, W, 3]."""
        return [self.names[index] for index in self.probabilities(images).argmax(1)]


@cache
def style_classifier(pictures_per_style: int = 150, seed: int = 20_407, side: int = 128) -> StyleClassifier:
    """Train the classifier (a few seconds of one core); the same arguments give the same one."""
    rng = np.random.default_rng(seed)
    features, targets = [], []
    for index, name in enumerate(STYLE_NAMES):
        # Plain pictures vary most: their backgrounds and colours are all of the world's.
        scenes = [sample_scene(rng) for _ in range(pictures_per_style * (2 if name == PLAIN else 1))]
        for number, image in enumerate(render_named_style(name, scenes, side)):
            features.append(describe(worn(image, rng) if number % 2 else image))
            targets.append(index)
    return _fit(np.stack(features).astype(np.float64), np.array(targets))


def render_named_style(name: str, scenes: Sequence[Scene], side: int = 128) -> Image8:
    """Render scenes in a style or plainly, uint8 [N, side, side, 3]."""
    pictures: Image8 = render(scenes, side) if name == PLAIN else render_style(name, scenes, side)
    return pictures


def worn(image: Image8, rng: np.random.Generator, strength: float = 1.0) -> Image8:
    """The picture as a network might have drawn it: shifted, blurred, recoloured a little, noisy."""
    picture = image.astype(np.float32)
    shift = rng.integers(-6, 7, 2)
    picture = np.roll(np.pad(picture, ((6, 6), (6, 6), (0, 0)), "edge"), shift, (0, 1))[6:-6, 6:-6]
    sigma = float(rng.uniform(0, 1.2 * strength))
    picture = ndimage.gaussian_filter(picture, (sigma, sigma, 0))
    picture = picture * (1 + strength * rng.uniform(-0.08, 0.08, 3)) + strength * rng.uniform(-8, 8, 3)
    picture = picture + rng.normal(0, rng.uniform(0, 7 * strength), picture.shape)
    return np.asarray(np.clip(picture, 0, 255).round().astype(np.uint8))


def _probabilities(features: Floats, weights: Floats) -> Floats:
    return np.asarray(special.softmax(features @ weights[:-1] + weights[-1], axis=1))


def _fit(features: Floats, targets: NDArray[np.intp], decay: float = 3e-3) -> StyleClassifier:
    """Minimise the mean cross-entropy with weight decay by L-BFGS."""
    mean, scale = features.mean(0), features.std(0) + 0.02
    inputs = (features - mean) / scale
    wanted = np.eye(len(STYLE_NAMES))[targets]
    shape = (inputs.shape[1] + 1, len(STYLE_NAMES))

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(shape)
        chances = _probabilities(inputs, weights)
        error = (chances - wanted) / len(inputs)
        value = (
            -np.log(np.maximum((chances * wanted).sum(1), 1e-12)).mean()
            + decay * (weights[:-1] ** 2).sum() / 2
        )
        slope = np.concatenate([inputs.T @ error + decay * weights[:-1], error.sum(0, keepdims=True)])
        return float(value), slope.ravel()

    found = optimize.minimize(
        loss, np.zeros(np.prod(shape)), jac=True, method="L-BFGS-B", options={"maxiter": 150}
    )
    return StyleClassifier(STYLE_NAMES, mean, scale, found.x.reshape(shape))
