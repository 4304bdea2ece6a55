"""Evaluates a model family: draws what the plan says, judges every picture, and writes what was found.

An interrupted evaluation goes on where it stopped: pictures that were drawn by the same weights with the same
options are not drawn again.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from swiftdiff.errors import StorageError

from .artist import Artist
from .marking import Drawn, judge_batch
from .plan import PARTS, EvaluationOptions, Part, PictureSet, Sample, plan_sets, sample
from .records import PictureRecord, RecordFile
from .summary import AimResult, Metrics, aims_of, check_aims, summarize_set

Image8 = NDArray[np.uint8]
#: called with a set's name, how many of its pictures are done, and how many it has
Progress = Callable[[str, int, int], None]

EVALUATION_NAME = "evaluation.json"
RECORDS_NAME = "pictures.jsonl"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found: `sets` are the whole plan's, `records` by set name in order of index."""

    model: str
    options: EvaluationOptions
    sets: tuple[PictureSet, ...]
    records: dict[str, tuple[PictureRecord, ...]]
    metrics: Metrics
    aims: tuple[AimResult, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every set of the plan was drawn to its end."""
        return all(len(self.records[item.name]) == item.size for item in self.sets)

    def missed(self, parts: Sequence[Part] = PARTS) -> tuple[AimResult, ...]:
        """The aims of some parts that were not met, or not measured."""
        return tuple(result for result in self.aims if result.aim.part in parts and not result.is_met)

    def as_dict(self) -> dict[str, Any]:
        """The content of evaluation.json."""
        return {
            "format": 1,
            "model": self.model,
            "complete": self.is_complete,
            "options": asdict(self.options),
            "environment": {
                "python": platform.python_version(),
                "machine": platform.machine(),
                **{name: version(name) for name in ("torch", "diffusers", "transformers", "numpy")},
            },
            "aims": [
                {
                    "metric": result.aim.metric,
                    "least": result.aim.least,
                    "reached": None if result.reached is None else round(result.reached.value, 5),
                    "met": result.is_met,
                }
                for result in self.aims
            ],
            "metrics": {name: estimate.as_dict() for name, estimate in self.metrics.items()},
        }


def evaluate_family(
    model: str,
    artist: Artist,
    options: EvaluationOptions,
    out: Path,
    *,
    parts: Sequence[Part] = PARTS,
    progress: Progress | None = None,
) -> Evaluation:
    """Draw and judge the pictures of some parts, and sum up all that the folder holds of this family.

    Args:
        model: The model's name, for the reports.
        artist: Draws the pictures.
        options: What to draw and how.
        out: Folder for pictures and records; made if missing.
        parts: Which parts to draw.
        progress: Called before a set and after each batch.

    Raises:
        StorageError: `out` cannot be written.
        ModelError: The model cannot be loaded.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {out}: {error.strerror or error}") from error
    file = RecordFile(out / RECORDS_NAME)
    sets = plan_sets(options, artist.controlnets, artist.loras)
    studio = _Studio(artist, options, out, file, progress or _ignore)
    for item in sets:
        if item.part in parts:
            studio.draw_missing(item)
    written = file.read()
    records = {item.name: _records_of(item, artist.key(item), written) for item in sets}
    metrics: Metrics = {}
    for item in sets:
        metrics |= summarize_set(item, records[item.name])
    evaluation = Evaluation(model, options, sets, records, metrics, check_aims(aims_of(sets), metrics))
    write_text(out / EVALUATION_NAME, json.dumps(evaluation.as_dict(), indent=2) + "\n")
    return evaluation


def write_text(path: Path, text: str) -> None:
    """Write a file.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def _ignore(name: str, done: int, total: int) -> None:
    pass


def _records_of(
    picture_set: PictureSet, key: str, written: Sequence[PictureRecord]
) -> tuple[PictureRecord, ...]:
    by_index = {
        record.index: record
        for record in written
        if record.key == key and record.set == picture_set.name and record.index < picture_set.size
    }
    return tuple(by_index[index] for index in sorted(by_index))


@dataclass(frozen=True, slots=True)
class _Studio:
    """Draws and judges what a folder does not hold yet."""

    artist: Artist
    options: EvaluationOptions
    out: Path
    file: RecordFile
    progress: Progress

    def draw_missing(self, picture_set: PictureSet) -> None:
        """Draw a set's missing pictures batch by batch, and record each batch at once."""
        key, size = self.artist.key(picture_set), picture_set.size
        held = _records_of(picture_set, key, self.file.read())
        done = {record.index for record in held if (self.out / record.picture).is_file()}
        missing = [index for index in range(size) if index not in done]
        self.progress(picture_set.name, size - len(missing), size)
        for start in range(0, len(missing), self.options.batch_size):
            indices = missing[start : start + self.options.batch_size]
            samples = [sample(picture_set, index, self.options) for index in indices]
            images = self.artist.draw(picture_set, samples)
            drawn = [
                Drawn(item, image, self._save(picture_set, item, image))
                for item, image in zip(samples, images, strict=True)
            ]
            self.file.append(judge_batch(picture_set, self.artist.controlnets, key, drawn))
            self.progress(picture_set.name, size - len(missing) + start + len(indices), size)

    def _save(self, picture_set: PictureSet, item: Sample, image: Image8) -> str:
        """Save a picture without loss and return its path relative to `out`."""
        place = Path("pictures") / picture_set.name / f"{item.index:04d}.png"
        try:
            (self.out / place.parent).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(self.out / place)
        except OSError as error:
            raise StorageError(f"cannot write {self.out / place}: {error.strerror or error}") from error
        return place.as_posix()
