"""Owns what does not change over a request's steps: the prompt's keys and values, its part of the time
embeddings, hints.

Stock diffusers computes them anew at every step. Computed once they are the same numbers, bit for bit, as
long as neither weights nor prompt change: then a new `Conditioning` takes the old one's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ControlNetModel

from swiftdiff.pipeline.prompt_attention import compute_keys_values
from swiftdiff.pipeline.split_unet import Prompt, embed_added, embed_hint, embed_time
from swiftdiff.telemetry.timeline import spanned


@spanned("conditioning")
class Conditioning:
    """What one network is told, for some rows of a batch. Made on the lane that uses it.

    Args:
        network: The stock UNet or ControlNet.
        cross_attentions: Its layers, part by part; a part is computed in one go.
        timesteps: Of all steps.
        prompt: Of the rows.
        reuse: Compute all that is the same at every step now. If false, at every step as stock does: for
            comparison.
    """

    def __init__(
        self,
        network: Any,
        cross_attentions: Sequence[Sequence[Any]],
        timesteps: torch.Tensor,
        prompt: Prompt,
        reuse: bool,
    ) -> None:
        self._network = network
        self._timesteps = timesteps
        self._prompt = prompt
        self._added = embed_added(network, prompt) if reuse else None
        self._states: list[tuple[torch.Tensor, ...]] = [(prompt.embeddings,) for _ in cross_attentions]
        if reuse:
            self._states = [compute_keys_values(layers, prompt.embeddings) for layers in cross_attentions]

    def time(self, step: int) -> torch.Tensor:
        """Return the network's time embedding at a step, [rows, width].

        When it is asked for: those of all steps in one batch would be rounded differently than stock's, and
        one after the other they would hold up the first step.
        """
        return embed_time(self._network, self._timesteps[step], self._prompt, self._added)

    def prompt(self, part: int = 0) -> tuple[torch.Tensor, ...]:
        """Return what a part of the network is told of the prompt: embeddings, or keys and values."""
        return self._states[part]


@spanned("control_hint")
class Hint:
    """A ControlNet's control image as the ControlNet sees it. Made on the lane that uses it.

    Args:
        controlnet: The stock ControlNet.
        image: [1 or pictures, 3, height, width] from 0 to 1.
        num_rows: Of the batch, a multiple of that: guidance's halves are in it one after the other. One row
            would do for equal ones, but a batch of another size is rounded otherwise.
        reuse: Embed it now. If false, at every step as stock does.
    """

    def __init__(self, controlnet: ControlNetModel, image: torch.Tensor, num_rows: int, reuse: bool) -> None:
        self._controlnet = controlnet
        self._image = image.repeat(num_rows // len(image), 1, 1, 1)
        self._embedded = embed_hint(controlnet, self._image) if reuse else None

    def embedded(self) -> torch.Tensor:
        """Return the embedding, [rows, channels, height, width] of the latents."""
        return embed_hint(self._controlnet, self._image) if self._embedded is None else self._embedded
