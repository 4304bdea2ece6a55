"""Owns what is promised of bounce, measures it over many clips, and writes its card."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from swiftdiff.errors import ModelError, StorageError
from swiftdiff.quality.statistics import Estimate, bootstrap_mean, wilson_share
from swiftdiff.world.config import CacheConfig, SamplerConfig
from swiftdiff.world.loading import WorldModel

from .judge import follow, is_easy_to_read, keeps_balls, obeys
from .physics import Course, simulate
from .render import draw
from .rollout import Roller
from .scene import ACTION_NAMES, FRAMES_PER_BLOCK, NONE, Scenes, sample_scenes

_FOLLOWED_BLOCKS = 3
_ACTION_BLOCK = 4
_ACTION_BLOCKS = _ACTION_BLOCK + 2
_AT_ONCE = 20
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that is measured.

    Attributes:
        name: Of it, as tables show it.
        reached: By the model.
        truth: By the true clips, drawn and judged in the same way: as good as can be measured.
        aim: What is promised, or None.
        at_most: The aim is a most and not a least.
    """

    name: str
    reached: Estimate
    truth: Estimate
    aim: float | None = None
    at_most: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the aim is met; true where there is none."""
        if self.aim is None:
            return True
        return self.reached.value <= self.aim if self.at_most else self.reached.value >= self.aim


@dataclass(frozen=True)
class EvaluationOptions:
    """How much is judged, and how clips are made.

    Attributes:
        clips: Of each of the two sets.
        blocks: Of a clip that is watched for what it keeps.
        seed: Of scenes and noise.
        cache: None is the engine's default.
        sampler: None is the model's.
    """

    clips: int = 100
    blocks: int = 40
    seed: int = 1000
    cache: CacheConfig | None = None
    sampler: SamplerConfig | None = None


CENTRE: Final = "centre error (px)"
KEPT: Final = "count and colour kept"
OBEYED: Final = "actions obeyed"


def evaluate(
    model: WorldModel, options: EvaluationOptions, report: Report | None = None
) -> tuple[Measure, ...]:
    """Make clips and judge their pixels.

    Args:
        model: Bounce, trained anyhow.
        options: How many clips.
        report: Called with what is made, how many clips of it there are, and how many there will be.

    Raises:
        ModelError: The model is of another world.
    """
    if model.settings.prompt_encoder != "bounce":
        raise ModelError(f"{model.name} is no bounce world: there is no physics to judge it by")
    roller = Roller(model, options.seed, options.cache, options.sampler)
    report = report or (lambda *_: None)
    return (*_judge_quiet(roller, options, report), *_judge_actions(roller, options, report))


def _judge_quiet(roller: Roller, options: EvaluationOptions, report: Report) -> list[Measure]:
    rng = np.random.default_rng([options.seed, 0])
    scenes = sample_scenes(rng, options.clips)
    actions = np.full((options.clips, max(options.blocks, _FOLLOWED_BLOCKS)), NONE)
    course = simulate(scenes, actions)
    name = f"{actions.shape[1]} blocks without actions"
    made, truth = _make(roller, scenes, actions, name, report), to_pictures(course)
    first = _FOLLOWED_BLOCKS * FRAMES_PER_BLOCK
    near = [follow(pictures[:, :first], course) for pictures in (made, truth)]
    errors = [bootstrap_mean(found.errors.tolist(), 0, found.clips.tolist()) for found in near]
    unseen = [wilson_share(found.missing, len(found.errors)) for found in near]
    kept = [_share(keeps_balls(pictures, scenes)) for pictures in (made, truth)]
    return [
        Measure(CENTRE, errors[0], errors[1], 1.5, at_most=True),
        Measure("… balls not seen", unseen[0], unseen[1]),
        Measure(KEPT, kept[0], kept[1], 0.90),
    ]


def _judge_actions(roller: Roller, options: EvaluationOptions, report: Report) -> list[Measure]:
    rng = np.random.default_rng([options.seed, 1])
    wanted = np.resize([kind for kind in range(len(ACTION_NAMES)) if kind != NONE], options.clips)
    scenes, actions, course = _easy_scenes(rng, wanted)
    pictures = _make(roller, scenes, actions, "clips with an action", report)
    obeyed, floor = (obeys(shown, scenes, _ACTION_BLOCK, wanted) for shown in (pictures, to_pictures(course)))
    measures = [Measure(OBEYED, _share(obeyed), _share(floor), 0.90)]
    for kind in np.unique(wanted):
        chosen = wanted == kind
        measures.append(Measure(f"… {ACTION_NAMES[kind]}", _share(obeyed[chosen]), _share(floor[chosen])))
    return measures


def _easy_scenes(
    rng: np.random.Generator, wanted: NDArray[np.int64]
) -> tuple[Scenes, NDArray[np.int64], Course]:
    """Return scenes in which an action can be read, what is asked in each block, and the true course."""
    actions = np.full((len(wanted), _ACTION_BLOCKS), NONE)
    actions[:, _ACTION_BLOCK] = wanted
    scenes = sample_scenes(rng, len(wanted))
    while not (is_easy := is_easy_to_read(course := simulate(scenes, actions), _ACTION_BLOCK)).all():
        fresh = sample_scenes(rng, len(wanted))
        keep = [is_easy.reshape(-1, *(1,) * (old.ndim - 1)) for old in _arrays(scenes)]
        pairs = zip(keep, _arrays(scenes), _arrays(fresh), strict=True)
        scenes = Scenes(*(np.where(kept, old, new) for kept, old, new in pairs))
    return scenes, actions, course


def _arrays(scenes: Scenes) -> tuple[NDArray[Any], ...]:
    return scenes.position, scenes.velocity, scenes.colour, scenes.present


def _make(
    roller: Roller, scenes: Scenes, actions: NDArray[np.int64], name: str, report: Report
) -> NDArray[np.uint8]:
    made = []
    for first in range(0, len(scenes), _AT_ONCE):
        report(name, first, len(scenes))
        chosen = slice(first, first + _AT_ONCE)
        made.append(roller.roll(scenes.take(chosen), actions[chosen], first))
    report(name, len(scenes), len(scenes))
    return np.concatenate(made)


def to_pictures(course: Course) -> NDArray[np.uint8]:
    """Return the true clips, uint8 [clips, frames, 32, 32, 3]."""
    scaled = (draw(course) / 2 + 0.5).mul(255).round().byte()
    pictures: NDArray[np.uint8] = scaled.permute(0, 2, 3, 4, 1).contiguous().numpy()
    return pictures


def _share(right: NDArray[np.bool_]) -> Estimate:
    return wilson_share(int(right.sum()), len(right))


def write_reports(
    measures: tuple[Measure, ...], options: EvaluationOptions, model: str, folder: Path
) -> list[Path]:
    """Write evaluation.json and MODEL_CARD.md; return their paths.

    Raises:
        StorageError: They cannot be written.
    """
    content = {
        "model": model,
        "clips": options.clips,
        "blocks": options.blocks,
        "seed": options.seed,
        "measures": [
            {
                "name": measure.name,
                "reached": measure.reached.as_dict(),
                "truth": measure.truth.as_dict(),
                "aim": measure.aim,
                "is_met": measure.is_met,
            }
            for measure in measures
        ],
    }
    files = {
        "evaluation.json": json.dumps(content, indent=2, ensure_ascii=False) + "\n",
        "MODEL_CARD.md": model_card(measures, options),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            temporary = folder / f".{name}.part"
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(folder / name)
    except OSError as error:
        raise StorageError(f"cannot write to {folder}: {error.strerror or error}") from error
    return [folder / name for name in files]


def model_card(measures: tuple[Measure, ...], options: EvaluationOptions) -> str:
    """Return the card's text: what the world is, what was measured, and whether that is enough."""
    missed = [measure for measure in measures if not measure.is_met]
    verdict = (
        "All aims are met."
        if not missed
        else f"**Not good enough**: aims missed: {'; '.join(measure.name for measure in missed)}."
    )
    rows = "\n".join(
        f"| {measure.name} | {measure.reached.value:.3f} | {measure.reached.low:.3f} to "
        f"{measure.reached.high:.3f} | {aim_text(measure)} | {measure.truth.value:.3f} | "
        f"{measure.reached.count} |"
        for measure in measures
    )
    return f"""# bounce: a world of balls, block by block

Pictures of 32x32 with one to three balls that move at constant speed, turn back at the walls and pass in
front of one another. A block is three frames. Prompts are a scene for the first block, then one of
{", ".join(f"`{name}`" for name in ACTION_NAMES)}.

{verdict}

Judged by pixels alone, seed {options.seed}: {options.clips} clips without actions, their centres against the
true course over the first {_FOLLOWED_BLOCKS} blocks, number and colours over {options.blocks} blocks; and
{options.clips} clips with an action. "Truth" is what true clips score by the same judge.

| measure | reached | 95 % | aim | truth | n |
|---|---|---|---|---|---|
{rows}
"""


def aim_text(measure: Measure) -> str:
    """Return an aim such as ``≥ 0.90``, or nothing."""
    if measure.aim is None:
        return ""
    return f"{'≤' if measure.at_most else '≥'} {measure.aim:.2f}"
