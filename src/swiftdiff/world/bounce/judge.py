"""Judges bounce clips by their pixels: whether balls go where physics says, stay what they are, and obey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .measure import MIN_PIXELS, Pictures, Sightings, locate, look_at
from .physics import Course, simulate
from .scene import (
    ACTION_NAMES,
    COLOUR,
    COLOURS,
    CONTACT,
    FRAMES_PER_BLOCK,
    MAX_BALLS,
    NONE,
    Floats,
    Scenes,
    nearest,
)

#: error of a ball that should be seen and is not, in pixels: half a picture
MISSING_ERROR: Final = 16.0
_LONGEST_WRONG = 3  # frames on end without a ball, or with one too many
_TOLERANCE = 0.5  # pixels by which another action may explain a course better
_FRAMES_AFTER = 2 * FRAMES_PER_BLOCK


@dataclass(frozen=True, eq=False)
class Followed:
    """How near balls are to their true centres.

    Attributes:
        errors: Of every ball in every frame, in pixels; MISSING_ERROR where it is not.
        clips: The clip of each.
        is_missing: Whether it is not seen.
    """

    errors: Floats
    clips: NDArray[np.int64]
    is_missing: NDArray[np.bool_]

    @property
    def clips_with_missing(self) -> int:
        """Clips in which a ball is not seen somewhere."""
        return len(np.unique(self.clips[self.is_missing]))


def follow(pictures: Pictures, truth: Course) -> Followed:
    """Compare clips, uint8 [clips, frames, 32, 32, 3], with their true course, of the same frames."""
    frames = pictures.shape[1]
    sightings = look_at(pictures.reshape(-1, *pictures.shape[2:]))
    clip, frame, ball = np.nonzero(
        np.broadcast_to(truth.present[:, None], (len(truth.present), frames, MAX_BALLS))
    )
    colour = truth.colour[clip, frame, ball]
    picture = clip * frames + frame
    is_seen = sightings.pixels[picture, colour] >= MIN_PIXELS
    errors = np.full(len(clip), MISSING_ERROR)
    centres = locate(sightings, picture[is_seen], colour[is_seen])
    true = truth.position[clip[is_seen], frame[is_seen], ball[is_seen]]
    errors[is_seen] = np.minimum(np.linalg.norm(centres - true, axis=-1), MISSING_ERROR)
    return Followed(errors, clip, ~is_seen)


def keeps_balls(pictures: Pictures, scenes: Scenes) -> NDArray[np.bool_]:
    """Tell of each clip without actions whether its balls stay as many and as coloured as they were.

    A ball may go unseen for a block on end, and pieces at its edge may pass for another ball for one; what
    the true clips score by this is printed beside.

    Args:
        pictures: uint8 [clips, frames, 32, 32, 3].
        scenes: What the clips begin with.
    """
    clips, frames = pictures.shape[:2]
    sightings = look_at(pictures.reshape(-1, *pictures.shape[2:]))
    pixels = sightings.pixels.reshape(clips, frames, -1)
    pieces = sightings.pieces.reshape(clips, frames, -1)
    is_expected = np.zeros((clips, len(COLOURS)), np.bool_)
    rows, balls = np.nonzero(scenes.present)
    is_expected[rows, scenes.colour[rows, balls]] = True
    is_unseen = is_expected[:, None] & (pixels < MIN_PIXELS)
    is_more = np.where(is_expected[:, None], pieces > 1, pieces > 0)
    is_kept = np.maximum(_longest_run(is_unseen), _longest_run(is_more)) <= _LONGEST_WRONG
    keeps: NDArray[np.bool_] = np.all(is_kept, axis=-1)
    return keeps


def obeys(pictures: Pictures, scenes: Scenes, block: int, actions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell of each clip whether the action at a block is what explains best how it went on.

    The state before the block is measured in the clip itself, speeds are the scene's. From there the true
    course is simulated for each push and for none; the one asked for must be nearest to what is seen in the
    six frames from the block on, by less than half a pixel if not. After a change of colour the new colours
    must be seen, the old ones not, in the last of these frames.

    Args:
        pictures: uint8 [clips, frames, 32, 32, 3], at least two blocks from `block` on.
        scenes: What the clips begin with.
        block: Where the action is.
        actions: One a clip.
    """
    first = block * FRAMES_PER_BLOCK
    shown = pictures[:, first - FRAMES_PER_BLOCK : first + _FRAMES_AFTER]
    frames = shown.shape[1]
    sightings = look_at(shown.reshape(-1, *shown.shape[2:]))
    is_changed = actions == COLOUR
    after = (scenes.colour + is_changed[:, None]) % len(COLOURS)
    centres = np.full((len(shown), frames, MAX_BALLS, 2), np.nan)
    clip, frame, ball = np.nonzero(np.broadcast_to(scenes.present[:, None], centres.shape[:3]))
    # a new colour shows from the block's first frame on
    colour = np.where(frame < FRAMES_PER_BLOCK, scenes.colour[clip, ball], after[clip, ball])
    picture = clip * frames + frame
    is_seen = sightings.pixels[picture, colour] >= MIN_PIXELS
    found = locate(sightings, picture[is_seen], colour[is_seen])
    centres[clip[is_seen], frame[is_seen], ball[is_seen]] = found
    misfits = np.stack([_misfit(centres, scenes, action) for action in range(len(ACTION_NAMES) - 1)], 1)
    asked = np.where(is_changed, NONE, actions)
    own = misfits[np.arange(len(actions)), asked]
    explains = own <= misfits.min(1) + _TOLERANCE  # a ball never seen makes NaN, which explains nothing
    obeyed: NDArray[np.bool_] = explains & _shows_colours(sightings, after, scenes.present, frames)
    return obeyed


def _misfit(centres: Floats, scenes: Scenes, action: int) -> Floats:
    """Return the mean distance [clips] of centres from an action's course from the measured state on."""
    before, seen = centres[:, :FRAMES_PER_BLOCK], centres[:, FRAMES_PER_BLOCK:]
    direction = before[:, -1] - before[:, 0]
    speed = np.linalg.norm(scenes.velocity, axis=-1, keepdims=True)
    velocity = speed * direction / np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-6)
    state = Scenes(before[:, -1], velocity, scenes.colour, scenes.present)
    actions = np.full((len(scenes), _FRAMES_AFTER // FRAMES_PER_BLOCK), NONE)
    actions[:, 0] = action
    course = simulate(state, actions, is_start=False)
    away = np.linalg.norm(course.position - seen, axis=-1)
    is_counted = np.broadcast_to(scenes.present[:, None], away.shape)
    mean: Floats = np.where(is_counted, away, 0).sum((1, 2)) / is_counted.sum((1, 2))
    return mean


def _shows_colours(
    sightings: Sightings, colour: NDArray[np.int64], present: NDArray[np.bool_], frames: int
) -> NDArray[np.bool_]:
    """Tell whether the last frame of each clip shows these colours and no other."""
    is_expected = np.zeros((len(colour), len(COLOURS)), np.bool_)
    rows, balls = np.nonzero(present)
    is_expected[rows, colour[rows, balls]] = True
    last = sightings.pixels.reshape(len(colour), frames, -1)[:, -1]
    shows: NDArray[np.bool_] = ((last >= MIN_PIXELS) == is_expected).all(-1)
    return shows


def is_easy_to_read(course: Course, block: int) -> NDArray[np.bool_]:
    """Tell of true courses where a measured direction is to be trusted: no ball meets a wall in the block
    before `block`, and none is near another from there on for three blocks.
    """
    first = (block - 1) * FRAMES_PER_BLOCK
    position = course.position[:, first : first + 3 * FRAMES_PER_BLOCK]
    steps = np.diff(position[:, :FRAMES_PER_BLOCK], axis=1)
    is_straight = (np.abs(np.diff(steps, axis=1)) < 1e-6).all(-1) | ~course.present[:, None]
    least = [nearest(position[:, frame], course.present) for frame in range(position.shape[1])]
    readable: NDArray[np.bool_] = is_straight.all((1, 2)) & (np.min(least, axis=0) > CONTACT + 1)
    return readable


def _longest_run(values: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the most true frames on end, [clips, colours], of [clips, frames, colours]."""
    longest = run = np.zeros((values.shape[0], values.shape[2]), np.int64)
    for frame in range(values.shape[1]):
        run = np.where(values[:, frame], run + 1, 0)
        longest = np.maximum(longest, run)
    return longest
