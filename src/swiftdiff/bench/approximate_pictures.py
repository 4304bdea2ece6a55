"""Measures how alike the pictures of bench-gpu's approximate systems are to exact ones, on a trained model.

``python -m swiftdiff.bench.approximate_pictures --out DIR`` needs no GPU: likeness does not depend on time. A
LoRA that may come late comes as late as it may, just before the step that waits for it. What is in DIR is not
measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from swiftdiff.adapters.bal import resolve_bound
from swiftdiff.adapters.store import AdapterStore, FetchedAdapter
from swiftdiff.bench.gpu_approximate import AIM, ENDS, ApproximateLine, approximate_lines
from swiftdiff.bench.gpu_options import GpuBenchOptions
from swiftdiff.bench.requests import GUIDANCE_SCALE, prepare_model
from swiftdiff.bench.settings import AdapterSetting
from swiftdiff.config import ServingConfig, SwiftdiffConfig
from swiftdiff.errors import AdapterError, ConfigError, StorageError, SwiftdiffError
from swiftdiff.files import (
    append_line,
    check_free,
    drop_torn_line,
    read_lines,
    read_model,
    write_png,
    write_whole,
)
from swiftdiff.models.quiet import quiet_libraries
from swiftdiff.models.registry import resolve_model
from swiftdiff.quality.pixels import compare_pixels
from swiftdiff.report.tables import Column, Table, to_csv, to_markdown
from swiftdiff.request import ControlNetUse, ImageRequest, LoraUse
from swiftdiff.telemetry.environment import describe_environment
from swiftdiff.trace.content import ContentPool
from swiftdiff.validation import unknown_name

_EXACT = SwiftdiffConfig(lora_cache_mb=0)
_PROGRAM = "python -m swiftdiff.bench.approximate_pictures"
_FIRST_SEED = 9000
_PATIENCE_S = 3600.0  # a request that takes longer to reach its bound is stuck


class Asked(BaseModel):
    """What is measured: the file ``options.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "shapes"
    pictures: int = 4
    steps: int = GpuBenchOptions().steps
    lines: tuple[str, ...] = ()


class Likeness(BaseModel):
    """How one picture came out: a line of ``pictures.jsonl``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str
    setting: str
    picture: int
    ssim: float
    max_levels: int
    mean_levels: float
    first_steps: dict[str, int]


class LateStore(AdapterStore):
    """A store that holds LoRAs back until a request reaches the last step that may begin without them."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._gate = threading.Event()
        self._left = 0

    def hold(self, k: int) -> None:
        """Hold LoRAs back for a request that waits at step ``k``."""
        # The engine looks ahead when a request begins, and before each step once it has patched.
        self._left = k
        (self._gate.clear if k else self._gate.set)()

    def look_ahead(self, limit: int) -> Sequence[ImageRequest]:
        """Count the steps; nothing ever waits."""
        if self._left == 0:
            self._gate.set()
        self._left -= 1
        return ()

    def release(self) -> None:
        """Hold nothing back."""
        self._gate.set()

    def fetch_lora(self, adapter_id: str) -> FetchedAdapter:
        """Bring a LoRA to the local disk, late; see `AdapterStore.fetch_lora`."""
        if not self._gate.wait(_PATIENCE_S):
            raise AdapterError(f"LoRA {adapter_id!r} was not let through: its request did not get that far")
        return super().fetch_lora(adapter_id)


@dataclass(frozen=True)
class Drawn:
    """A picture, and from which step on each LoRA was in it."""

    picture: Image.Image
    first_steps: dict[str, int]


class LateEngine:
    """The engine whose LoRAs come as late as its switches allow. Close it.

    Raises:
        SwiftdiffError: The model or its adapters cannot be used.
    """

    def __init__(self, model: str, name: str, switches: SwiftdiffConfig) -> None:
        with quiet_libraries():
            from swiftdiff.systems.swiftdiff import SwiftdiffSystem
        url = resolve_model(model).adapter_url
        if url is None:
            raise AdapterError(f"model {model!r} has no adapters of its own")
        self._bound = switches.bal_k
        self._store = LateStore(url)
        config = ServingConfig(name=name, engine="swiftdiff", model=model, swiftdiff=switches)
        self._system = SwiftdiffSystem(config, store=self._store)
        self._system.watch(self._store.look_ahead)

    def draw(self, request: ImageRequest, images_root: Path) -> Drawn:
        """Serve a request.

        Raises:
            SwiftdiffError: It cannot be served.
        """
        k = resolve_bound(self._bound, request.num_inference_steps)
        self._store.hold(k)
        try:
            served = self._system.serve(request, images_root)
            images = served.images() if callable(served.images) else served.images
        finally:
            self._store.release()  # a request that failed must not leave a thread waiting
            self._system.finish()
        steps = {each.id: each.step_patched for each in served.adapters if each.kind == "lora"}
        if any(step != k for step in steps.values()):
            raise RuntimeError(f"LoRAs were patched at steps {steps}, not at {k}")
        return Drawn(images[0], dict.fromkeys(steps, k))

    def close(self) -> None:
        """End the engine."""
        self._store.release()
        self._system.close()


def measure(asked: Asked, out: Path) -> list[Likeness]:
    """Draw what ``out`` lacks, write it down picture by picture, and return all there is.

    Raises:
        SwiftdiffError: The model cannot be used, or ``out`` cannot be written or is another measurement's.
    """
    lines = chosen_lines(asked)
    options, raw = out / "options.json", out / "pictures.jsonl"
    if options.is_file():
        if read_model(options, Asked) != asked:
            raise StorageError(f"{out} was begun with other options; name another folder")
    else:
        check_free(out)
        write_whole(options, asked.model_dump_json(indent=2).encode() + b"\n")
    found = []
    if raw.is_file():
        drop_torn_line(raw, Likeness)
        found = [row for row, _ in read_lines(raw, Likeness)]
    done = {(row.system, row.setting, row.picture) for row in found}
    for line in lines:
        left = [
            (setting, index)
            for setting in line.settings
            for index in range(asked.pictures)
            if (line.name, setting.name, index) not in done
        ]
        for row in _measure_line(asked, line, left, out):
            append_line(raw, row.model_dump_json())
            found.append(row)
    return found


def likeness_table(rows: Sequence[Likeness], asked: Asked) -> Table:
    """Return how alike pictures are, by line and setting."""
    cells: dict[tuple[str, str], list[Likeness]] = {}
    for row in rows:
        cells.setdefault((row.system, row.setting), []).append(row)
    columns = (
        Column("system"),
        Column("setting"),
        Column("SSIM", ".3f"),
        Column("lowest", ".3f"),
        Column(f"≥ {AIM:g}", "d"),
        Column("of", "d"),
        Column("mean diff.", ".2f"),
        Column("LoRAs from step", "d"),
    )
    return Table(
        name="likeness",
        title=f"{asked.model}, {asked.steps} steps: how alike approximate pictures are to exact ones",
        columns=columns,
        rows=tuple(
            (
                system,
                setting,
                mean(row.ssim for row in own),
                min(row.ssim for row in own),
                sum(row.ssim >= AIM for row in own),
                len(own),
                mean(row.mean_levels for row in own),
                max((step for row in own for step in row.first_steps.values()), default=None),
            )
            for (system, setting), own in cells.items()
        ),
        note=(
            "Against the engine with every exact switch, request by request. SSIM: the mean over pictures, "
            "and the lowest. LoRAs come as late as bal_k allows. Computed in float32 on a CPU."
        ),
    )


def chosen_lines(asked: Asked) -> list[ApproximateLine]:
    """Return what is measured.

    Raises:
        ConfigError: A named system is not known.
    """
    lines = {line.name: line for line in approximate_lines(on_gpu=True)}
    for name in asked.lines:
        if name not in lines:
            raise ConfigError(unknown_name("system", name, tuple(lines)))
    if asked.lines:
        return [lines[name] for name in asked.lines]
    return list(approximate_lines(on_gpu=False))


def _measure_line(
    asked: Asked, line: ApproximateLine, left: Sequence[tuple[AdapterSetting, int]], out: Path
) -> Iterator[Likeness]:
    if not left:
        return
    content = _Content(asked, out)
    exact = LateEngine(asked.model, "exact", _EXACT)
    approximate = LateEngine(asked.model, line.name, line.applied_to(_EXACT))
    try:
        for setting, index in left:
            request = content.request(setting, index)
            expected = content.expected(exact, request)
            drawn = approximate.draw(request, out)
            write_png(out / "pictures" / line.name / f"{request.request_id}.png", drawn.picture)
            pixels = compare_pixels(expected, np.asarray(drawn.picture))
            yield Likeness(
                system=line.name,
                setting=setting.name,
                picture=index,
                ssim=pixels.ssim,
                max_levels=pixels.max_levels,
                mean_levels=pixels.mean_levels,
                first_steps=drawn.first_steps,
            )
    finally:
        exact.close()
        approximate.close()


class _Content:
    """The requests, and their exact pictures, which are drawn once."""

    def __init__(self, asked: Asked, out: Path) -> None:
        self._case = prepare_model(asked.model, ENDS)
        self._asked, self._out = asked, out
        self._pool = ContentPool(_FIRST_SEED, self._case.side, asked.pictures, stem="pictures")

    def request(self, setting: AdapterSetting, index: int) -> ImageRequest:
        """Return one request; the LoRAs change from picture to picture."""
        controlnets = tuple(
            ControlNetUse(id=id_, image=self._pool.control_image(index, id_))
            for id_ in self._case.controlnets[: setting.num_controlnets]
        )
        self._pool.write_images(self._out)
        count, ids = setting.num_loras, self._case.loras
        loras = [ids[(count * index + turn) % len(ids)] for turn in range(count)]
        return ImageRequest(
            request_id=f"{setting.num_controlnets}C-{setting.num_loras}L-{index}",
            timestamp=0,
            prompt=self._pool.prompt(index),
            width=self._case.side,
            height=self._case.side,
            num_inference_steps=self._asked.steps,
            guidance_scale=GUIDANCE_SCALE,
            seed=_FIRST_SEED + index,
            controlnets=controlnets,
            loras=tuple(LoraUse(id=id_) for id_ in loras),
        )

    def expected(self, exact: LateEngine, request: ImageRequest) -> Any:
        """Return the exact picture."""
        path = self._out / "pictures" / "exact" / f"{request.request_id}.png"
        if not path.is_file():
            write_png(path, exact.draw(request, self._out).picture)
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and write ``likeness.md`` and ``likeness.csv``; return the exit code."""
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures and tables")
    parser.add_argument("--model", default="shapes", help="a trained model with adapters (default: shapes)")
    parser.add_argument("--pictures", type=int, default=4, help="for each setting (default: 4)")
    parser.add_argument("--steps", type=int, default=Asked().steps, help="as bench-gpu's (default: 50)")
    parser.add_argument("--systems", default="", help="some of them, with commas between (default: all)")
    given = parser.parse_args(argv)
    try:
        for name, value in (("--pictures", given.pictures), ("--steps", given.steps)):
            if value < 1:
                raise ConfigError.for_field(name, value, "1 or more")
        lines = tuple(name.strip() for name in given.systems.split(",") if name.strip())
        asked = Asked(model=given.model, pictures=given.pictures, steps=given.steps, lines=lines)
        table = likeness_table(measure(asked, given.out), asked)
        environment = describe_environment([*_PROGRAM.split(), *(sys.argv[1:] if argv is None else argv)])
        text = json.dumps(environment, indent=2, ensure_ascii=False) + "\n"
        write_whole(given.out / "environment.json", text.encode())
        write_whole(given.out / "likeness.csv", to_csv(table).encode())
        systems = "".join(f"- **{line.name}**: {line.switched}\n" for line in chosen_lines(asked))
        write_whole(given.out / "likeness.md", f"{to_markdown(table)}\n{systems}".encode())
    except SwiftdiffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(to_markdown(table))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
