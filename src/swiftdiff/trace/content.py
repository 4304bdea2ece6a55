"""Makes up what a trace's source lacks: prompts of small scenes, and the control images that show them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from swiftdiff.errors import StorageError, TraceError
from swiftdiff.scenes.captions import caption, parse_caption
from swiftdiff.scenes.control import CONTROL_KINDS, control_from_scene
from swiftdiff.scenes.scene import sample_scene


def control_image(kind: str, prompt: str, side: int = 128) -> Image.Image:
    """Draw the control image of one ControlNet for the scene that a canonical prompt describes.

    Raises:
        TraceError: The prompt is not a canonical caption.
    """
    scene = parse_caption(prompt)
    if scene is None:
        raise TraceError.for_field("prompt", prompt, "a canonical caption of a scene")
    return Image.fromarray(control_from_scene(kind, scene, side))


def trace_stem(path: Path) -> str:
    """Return a trace's name without ``.jsonl`` and ``.gz``, as the folder of its control images is named."""
    stem = path.name.removesuffix(".gz").removesuffix(".jsonl")
    return "".join(char if char.isalnum() or char in "._- " else "_" for char in stem)


class ContentPool:
    """A few seeded scenes that all requests of a trace share: a prompt each, and pictures where needed.

    A million requests use at most ``size`` prompts and ``size`` pictures of each kind.

    Args:
        seed: Equal seeds give equal scenes.
        side: Pixels of a control image's side.
        size: Number of scenes.
        stem: Begins the name of the folder of the control images; see `trace_stem`.
    """

    def __init__(self, seed: int, side: int = 128, size: int = 64, *, stem: str = "trace") -> None:
        self._seed = seed
        self._side = side
        self.size = size
        self._folder = f"{stem}-controls"
        self._prompts: dict[int, str] = {}
        self._used: set[tuple[int, str]] = set()

    def prompt(self, index: int) -> str:
        """Return the canonical caption of scene ``index`` modulo the pool's size: one to three objects."""
        number = index % self.size
        if number not in self._prompts:
            self._prompts[number] = caption(sample_scene(np.random.default_rng([self._seed, number])))
        return self._prompts[number]

    def control_image(self, index: int, kind: str) -> str:
        """Return the path, from the trace's folder, of scene ``index``'s picture for a kind of ControlNet.

        Args:
            index: As for `prompt`.
            kind: One of ``CONTROL_KINDS``.

        Raises:
            TraceError: There is no such kind.
        """
        if kind not in CONTROL_KINDS:
            raise TraceError.for_field("kind", kind, f"one of {', '.join(CONTROL_KINDS)}")
        number = index % self.size
        self._used.add((number, kind))
        return self._path(number, kind)

    def write_images(self, folder: Path) -> int:
        """Draw the control images handed out so far into a trace's folder; return how many there are.

        Raises:
            StorageError: One cannot be written.
        """
        try:
            for number, kind in sorted(self._used):
                path = folder / self._path(number, kind)
                path.parent.mkdir(parents=True, exist_ok=True)
                _save(control_image(kind, self.prompt(number), self._side), path)
        except OSError as error:
            where = folder / self._folder
            raise StorageError(
                f"cannot write control images to {where}: {error.strerror or error}"
            ) from error
        return len(self._used)

    def _path(self, number: int, kind: str) -> str:
        return f"{self._folder}/{number:02d}-{kind}.png"


def _save(picture: Image.Image, path: Path) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    unfinished = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            picture.save(file, format="PNG", optimize=True)
        unfinished.chmod(0o644)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
