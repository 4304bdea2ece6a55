"""Owns what is promised of bounce, and measures it over many clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from swiftdiff.errors import ModelError
from swiftdiff.models.weights_digest import weights_digest
from swiftdiff.quality.statistics import Estimate, bootstrap_mean, wilson_share
from swiftdiff.world.config import CacheConfig, SamplerConfig
from swiftdiff.world.loading import WorldModel

from .contact_sheet import Pair, Sheet
from .judge import Followed, follow, is_easy_to_read, keeps_balls, obeys
from .measure import Pictures
from .physics import Course, simulate
from .render import draw
from .rollout import Roller
from .scene import ACTION_NAMES, FRAMES_PER_BLOCK, NONE, Scenes, sample_scenes

FOLLOWED_BLOCKS: Final = 3
ACTION_BLOCK: Final = 4
_ACTION_BLOCKS = ACTION_BLOCK + 2
_AT_ONCE = 20
_FIRST_SHOWN, _WORST_SHOWN = 3, 3  # clips of a contact sheet
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


@dataclass(frozen=True)
class Evaluation:
    """What was measured of a model.

    Attributes:
        measures: In the order of a table.
        sheets: Some of the clips beside the true ones.
        weights_sha256: Of the model that was judged.
    """

    measures: tuple[Measure, ...]
    sheets: tuple[Sheet, ...]
    weights_sha256: str


CENTRE_AIM: Final = 1.5
CENTRE: Final = "centre error (px)"
KEPT: Final = "count and colour kept"
OBEYED: Final = "actions obeyed"


def evaluate(model: WorldModel, options: EvaluationOptions, report: Report | None = None) -> Evaluation:
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
    judged = (_judge_quiet(roller, options, report), _judge_actions(roller, options, report))
    return Evaluation(
        measures=tuple(measure for measures, _ in judged for measure in measures),
        sheets=tuple(sheet for _, sheet in judged),
        weights_sha256=weights_digest({"transformer": model.causal.transformer, "vae": model.vae}),
    )


def _judge_quiet(roller: Roller, options: EvaluationOptions, report: Report) -> tuple[list[Measure], Sheet]:
    rng = np.random.default_rng([options.seed, 0])
    scenes = sample_scenes(rng, options.clips)
    actions = np.full((options.clips, max(options.blocks, FOLLOWED_BLOCKS)), NONE)
    course = simulate(scenes, actions)
    name = f"{actions.shape[1]} blocks without actions"
    made, truth = _make(roller, scenes, actions, name, report), to_pictures(course)
    first = FOLLOWED_BLOCKS * FRAMES_PER_BLOCK
    near = [follow(pictures[:, :first], course) for pictures in (made, truth)]
    errors = [bootstrap_mean(found.errors.tolist(), 0, found.clips.tolist()) for found in near]
    within = [
        bootstrap_mean((found.errors <= CENTRE_AIM).astype(float).tolist(), 0, found.clips.tolist())
        for found in near
    ]
    unseen = [wilson_share(found.clips_with_missing, options.clips) for found in near]
    is_kept, is_true_kept = keeps_balls(made, scenes), keeps_balls(truth, scenes)
    measures = [
        Measure(CENTRE, errors[0], errors[1], CENTRE_AIM, at_most=True),
        Measure(f"… centres within {CENTRE_AIM:g} px", within[0], within[1]),
        Measure("… clips with a ball unseen", unseen[0], unseen[1]),
        Measure(KEPT, _share(is_kept), _share(is_true_kept), 0.90),
    ]
    number = scenes.present.sum(1)
    for balls in np.unique(number):
        chosen, name = number == balls, f"… of {balls} ball{'s' if balls > 1 else ''}"
        measures.append(Measure(name, _share(is_kept[chosen]), _share(is_true_kept[chosen])))
    return measures, _show_quiet(made, truth, near[0], is_kept, options)


def _show_quiet(
    made: Pictures, truth: Pictures, near: Followed, is_kept: NDArray[np.bool_], options: EvaluationOptions
) -> Sheet:
    """Return the first clips and those of the others that stray farthest."""
    away = np.bincount(near.clips, near.errors, len(made)) / np.bincount(near.clips, minlength=len(made))
    later = np.array([3, 5, 10, 20, 40]) * FRAMES_PER_BLOCK
    frames = [*range(FOLLOWED_BLOCKS * FRAMES_PER_BLOCK), *(at - 1 for at in later)]
    return Sheet(
        name="without-actions",
        frames=tuple(sorted({frame for frame in frames if frame < made.shape[1]})),
        pairs=tuple(
            Pair(
                f"clip {clip}, noise {options.seed + clip}{note}: centres {away[clip]:.2f} px off over "
                f"{FOLLOWED_BLOCKS} blocks, count and colour {'kept' if is_kept[clip] else 'NOT KEPT'}",
                truth[clip],
                made[clip],
            )
            for clip, note in _chosen(away)
        ),
    )


def _chosen(badness: NDArray[np.float64]) -> list[tuple[int, str]]:
    """Return which clips are shown, and why where they are not simply the first."""
    first = list(range(min(_FIRST_SHOWN, len(badness))))
    worst = [int(clip) for clip in np.argsort(-badness, kind="stable") if clip not in first][:_WORST_SHOWN]
    return [(clip, "") for clip in first] + [(clip, " (one of the worst)") for clip in worst]


def _judge_actions(roller: Roller, options: EvaluationOptions, report: Report) -> tuple[list[Measure], Sheet]:
    rng = np.random.default_rng([options.seed, 1])
    wanted = np.resize([kind for kind in range(len(ACTION_NAMES)) if kind != NONE], options.clips)
    scenes, actions, course = _easy_scenes(rng, wanted)
    pictures, truth = _make(roller, scenes, actions, "clips with an action", report), to_pictures(course)
    obeyed, floor = (obeys(shown, scenes, ACTION_BLOCK, wanted) for shown in (pictures, truth))
    measures = [Measure(OBEYED, _share(obeyed), _share(floor), 0.90)]
    for kind in np.unique(wanted):
        chosen = wanted == kind
        measures.append(Measure(f"… {ACTION_NAMES[kind]}", _share(obeyed[chosen]), _share(floor[chosen])))
    # One of each action, and then some that were not obeyed.
    kinds = len(np.unique(wanted))
    shown = [*range(kinds), *(int(clip) for clip in np.flatnonzero(~obeyed) if clip >= kinds)]
    first = ACTION_BLOCK * FRAMES_PER_BLOCK
    sheet = Sheet(
        name="with-actions",
        frames=tuple(range(first - FRAMES_PER_BLOCK, first + 2 * FRAMES_PER_BLOCK)),
        pairs=tuple(
            Pair(
                f"clip {clip}, noise {options.seed + clip}: {ACTION_NAMES[wanted[clip]]} in block "
                f"{ACTION_BLOCK}, {'obeyed' if obeyed[clip] else 'NOT OBEYED'}",
                truth[clip],
                pictures[clip],
            )
            for clip in shown[: kinds + _WORST_SHOWN]
        ),
    )
    return measures, sheet


def _easy_scenes(
    rng: np.random.Generator, wanted: NDArray[np.int64]
) -> tuple[Scenes, NDArray[np.int64], Course]:
    """Return scenes in which an action can be read, what is asked in each block, and the true course."""
    actions = np.full((len(wanted), _ACTION_BLOCKS), NONE)
    actions[:, ACTION_BLOCK] = wanted
    scenes = sample_scenes(rng, len(wanted))
    while not (is_easy := is_easy_to_read(course := simulate(scenes, actions), ACTION_BLOCK)).all():
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
