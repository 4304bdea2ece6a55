"""Decides which pictures an evaluation draws: prompts, seeds, control images and styles, all from one seed.

Sample i is the same scene and the same seed in every set, so that a picture with a ControlNet or a LoRA can
be laid beside the base's picture of the same prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal

import numpy as np

from swiftdiff.errors import ConfigError
from swiftdiff.scenes import Scene, caption, sample_scene

Part = Literal["base", "controlnets", "loras"]
PARTS: Final[tuple[Part, ...]] = ("base", "controlnets", "loras")

#: sets that need no adapter
BASE: Final = "base"
HELD_OUT: Final = "held_out"


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """What is drawn. Sample i of every set has the seed `seed` + i.

    Raises:
        ConfigError: A number is out of its range.
    """

    prompts: int = 500
    held_out_prompts: int = 100
    control_pictures: int = 50
    lora_pictures: int = 24
    num_inference_steps: int = 20
    guidance_scale: float = 5.0
    seed: int = 1000
    batch_size: int = 8
    device: str = "cpu"
    dtype: str = "float32"
    scheduler: str = "euler"

    def __post_init__(self) -> None:
        lowest = {"prompts": 1, "held_out_prompts": 0, "control_pictures": 1, "lora_pictures": 1}
        lowest |= {"num_inference_steps": 1, "guidance_scale": 0, "seed": 0, "batch_size": 1}
        for name, low in lowest.items():
            if not getattr(self, name) >= low:
                raise ConfigError.for_field(name, getattr(self, name), f"at least {low}")

    def of_drawing(self) -> dict[str, object]:
        """The options that change a picture; how many there are and how they are batched do not count."""
        counts = ("prompts", "held_out_prompts", "control_pictures", "lora_pictures", "batch_size")
        return {name: value for name, value in asdict(self).items() if name not in counts}


def scale_to(options: EvaluationOptions, prompts: int) -> EvaluationOptions:
    """The options with all sets in proportion to a number of base prompts; 500 gives the model card's."""
    return replace(
        options,
        prompts=prompts,
        held_out_prompts=max(5, prompts // 5),
        control_pictures=min(50, max(5, prompts // 10)),
        lora_pictures=min(24, max(4, prompts // 20)),
    )


@dataclass(frozen=True, slots=True)
class PictureSet:
    """Pictures that are drawn and measured alike: by the base alone, with one ControlNet or with one LoRA."""

    name: str
    part: Part
    size: int
    controlnet: str | None = None
    lora: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture to draw."""

    index: int
    scene: Scene
    prompt: str
    seed: int


def plan_sets(
    options: EvaluationOptions, controlnets: Sequence[str], loras: Sequence[str]
) -> tuple[PictureSet, ...]:
    """The sets of a whole evaluation of a family with these adapters."""
    base = [PictureSet(BASE, "base", options.prompts)]
    if options.held_out_prompts:
        base.append(PictureSet(HELD_OUT, "base", options.held_out_prompts))
    controlled = [
        PictureSet(f"controlnet.{kind}", "controlnets", options.control_pictures, controlnet=kind)
        for kind in controlnets
    ]
    styled = [PictureSet(f"lora.{name}", "loras", options.lora_pictures, lora=name) for name in loras]
    return (*base, *controlled, *styled)


def sample(picture_set: PictureSet, index: int, options: EvaluationOptions) -> Sample:
    """The sample of one index, the same however many are drawn."""
    held_out = picture_set.name == HELD_OUT
    rng = np.random.default_rng([options.seed, int(held_out), index])
    scene = sample_scene(rng, held_out=held_out)
    return Sample(index, scene, caption(scene), options.seed + index)
