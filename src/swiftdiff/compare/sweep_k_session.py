"""Runs a sweep of k, new or resumed: pictures and latencies of each LoRA and k, each on disk at once."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from swiftdiff.compare.sweep_k_engine import Drawn, SweepEngine
from swiftdiff.compare.sweep_k_folder import ENVIRONMENT, Key, Part, Subject, SweepFolder, SweepRecord
from swiftdiff.compare.sweep_k_options import LORA_SCALE, SweepOptions
from swiftdiff.compare.sweep_k_requests import plan_requests, with_lora
from swiftdiff.engine.interrupt import Interrupts
from swiftdiff.engine.measuring import MeasuringObserver, SessionEnd
from swiftdiff.errors import StorageError, SwiftdiffError
from swiftdiff.models.registry import EMBEDDED
from swiftdiff.quality.picture_judge import PictureJudge, expect
from swiftdiff.quality.pixels import compare_pixels
from swiftdiff.request import ImageRequest
from swiftdiff.scenes import STYLES, parse_caption
from swiftdiff.telemetry.environment import describe_environment

SweepEnd = SessionEnd[SweepFolder]


def start_sweep(
    options: SweepOptions, out: Path, *, argv: list[str], observer: MeasuringObserver | None = None
) -> SweepEnd:
    """Sweep into a new folder.

    Args:
        options: What is measured.
        out: The folder: not there yet, or empty.
        argv: The command line, for ``environment.json``.
        observer: Is told how it goes.

    Raises:
        SwiftdiffError: The options, the model, the trace or the folder cannot be used.
    """
    requests = plan_requests(options)
    folder = SweepFolder.create(out, options)
    folder.write_json(ENVIRONMENT, describe_environment(argv))
    return _Sweep(folder, options, requests, observer or MeasuringObserver()).run()


def resume_sweep(path: Path, *, observer: MeasuringObserver | None = None) -> SweepEnd:
    """Measure what is missing in a sweep's folder, and once more what failed.

    Raises:
        SwiftdiffError: The folder is no sweep's or is damaged, or model, LoRAs or trace are not the same.
    """
    folder = SweepFolder.open(path)
    options = folder.read_options()
    return _Sweep(folder, options, plan_requests(options), observer or MeasuringObserver()).run()


def is_judged(options: SweepOptions, lora: str) -> bool:
    """Return whether a LoRA's style, and what its pictures show, can be judged."""
    return options.config.model == EMBEDDED and lora in STYLES


class _Sweep:
    """A sweep at work."""

    def __init__(
        self,
        folder: SweepFolder,
        options: SweepOptions,
        requests: Sequence[ImageRequest],
        observer: MeasuringObserver,
    ) -> None:
        self._folder = folder
        self._options = options
        self._requests = requests
        self._observer = observer
        self._images_root = Path("." if options.trace is None else options.trace).parent
        self._judge = PictureJudge()
        self._done = {record.key for record in folder.read_records() if record.error is None}
        self._failed: set[str] = set()

    def run(self) -> SweepEnd:
        """Measure what the folder has no record of.

        Raises:
            SwiftdiffError: The model cannot be loaded, or what was begun was of other files.
        """
        todo = [key for key in self._plan() if key not in self._done]
        if not todo:
            return SweepEnd(self._folder, "complete")
        try:
            with Interrupts() as interrupts, self._start() as engine:
                self._check_subject(engine)
                try:
                    self._measure(engine, todo, interrupts)
                except StorageError as error:
                    return SweepEnd(self._folder, "stopped", error)
        except KeyboardInterrupt:
            return SweepEnd(self._folder, "interrupted")
        return SweepEnd(self._folder, "complete")

    def _plan(self) -> Iterator[Key]:
        """Yield what is to be measured: pictures LoRA by LoRA; latencies of all ks in turns."""
        options = self._options
        for lora, k, index in itertools.product(options.loras, options.ks, range(len(self._requests))):
            yield ("quality", lora, k, index)
        for repeat, lora in itertools.product(range(options.repeats), options.loras):
            for k in options.ks if repeat % 2 == 0 else reversed(options.ks):
                yield ("latency", lora, k, repeat)

    @contextmanager
    def _start(self) -> Iterator[SweepEngine]:
        self._observer.doing(f"loading {Path(self._options.config.model).name}")
        engine = SweepEngine(self._options.serving, self._options.emulation)
        try:
            yield engine
        finally:
            engine.close()

    def _check_subject(self, engine: SweepEngine) -> None:
        found: dict[str, str] = {}
        for lora in self._options.loras:
            try:
                found[lora] = engine.lora_sha256(lora)
            except SwiftdiffError as error:
                self._give_up(lora, error)
        before = self._folder.read_subject() or Subject(weights_sha256=engine.weights_sha256, lora_sha256={})
        measured = {lora for _, lora, _, _ in self._done}  # one that only failed may have been repaired
        loras = {lora: sha256 for lora, sha256 in before.lora_sha256.items() if lora in measured}
        is_other = any(loras.get(lora, sha256) != sha256 for lora, sha256 in found.items())
        if is_other or before.weights_sha256 != engine.weights_sha256:
            raise StorageError(
                f"{self._folder.path} was begun with other files: the model's weights or its LoRAs are not "
                "the same any more; begin a new sweep"
            )
        self._folder.write_subject(before.model_copy(update={"lora_sha256": loras | found}))

    def _measure(self, engine: SweepEngine, todo: Sequence[Key], interrupts: Interrupts) -> None:
        self._warm_up(engine)
        began = time.monotonic()
        for number, key in enumerate(todo):
            left_s = (time.monotonic() - began) / number * (len(todo) - number) if number else None
            self._observer.progressed(len(self._done), len(self._done) + len(todo) - number, left_s)
            part, lora, k, _ = key
            if lora in self._failed:
                continue
            self._observer.doing(f"{part} of {lora}, k = {k}")
            try:
                record = self._record(engine, key)
            except StorageError:
                raise
            except SwiftdiffError as error:
                self._give_up(lora, error)
                continue
            with interrupts.hold():
                self._folder.append(record)
            self._done.add(key)

    def _warm_up(self, engine: SweepEngine) -> None:
        """Let graphs be captured and threads start by what is not counted."""
        for lora in self._options.loras:
            try:
                engine.serve_delayed(with_lora(self._requests[0], lora), 0, self._images_root, 0)
            except SwiftdiffError as error:
                self._give_up(lora, error)
            else:
                return

    def _give_up(self, lora: str, error: SwiftdiffError) -> None:
        """Note that a LoRA's next measurement failed: all others would fail alike."""
        self._failed.add(lora)
        missing = (key for key in self._plan() if key[1] == lora and key not in self._done)
        if (key := next(missing, None)) is not None:
            part, _, k, index = key
            self._folder.append(SweepRecord(part=part, lora=lora, k=k, index=index, error=str(error)))

    def _record(self, engine: SweepEngine, key: Key) -> SweepRecord:
        part, lora, k, index = key
        request = with_lora(self._requests[index % len(self._requests)], lora)
        if part == "latency":
            return _timed(key, engine.serve_delayed(request, k, self._images_root, index))
        drawn = engine.serve_patched_at(request, k, self._images_root)
        name = _picture(lora, k, request)
        self._folder.save_picture(name, drawn.picture)
        return _timed(key, drawn).model_copy(update={"picture": name, **self._marks(request, lora, k)})

    def _marks(self, request: ImageRequest, lora: str, k: int) -> dict[str, float | int | None]:
        picture = self._folder.read_picture(_picture(lora, k, request))
        pixels = compare_pixels(self._folder.read_picture(_picture(lora, 0, request)), picture)
        marks: dict[str, float | int | None] = {
            "ssim": pixels.ssim,
            "mean_square": pixels.mean_square,
            "mean_levels": pixels.mean_levels,
            "max_levels": pixels.max_levels,
        }
        if is_judged(self._options, lora):
            expected = expect(parse_caption(request.prompt), loras=[(lora, LORA_SCALE)])
            scores = self._judge.score(np.asarray(picture), expected)
            marks |= {"style": scores.style, "attributes": scores.attributes}
        return marks


def _picture(lora: str, k: int, request: ImageRequest) -> str:
    return f"images/{lora}/k{k:02}-{request.request_id}.png"


def _timed(key: tuple[Part, str, int, int], drawn: Drawn) -> SweepRecord:
    part, lora, k, index = key
    return SweepRecord(
        part=part,
        lora=lora,
        k=k,
        index=index,
        step_patched=drawn.step_patched,
        latency_s=drawn.latency_s,
        wait_s=drawn.wait_s,
        restore_s=drawn.restore_s,
        load_s=drawn.load_s,
    )
