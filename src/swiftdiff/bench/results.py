"""Owns what a benchmark's measurements come to: medians, paired ratios, stages, pictures, doubts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from swiftdiff.bench.lineup import ALL_OFF, STOCK, SYSTEMS
from swiftdiff.bench.machine_load import MAX_IDLE_LOAD, MAX_OTHER_SHARE
from swiftdiff.bench.options import VIEWS, BenchOptions, View
from swiftdiff.bench.paired import Spread, pair_ratios, spread_of
from swiftdiff.bench.records import Measurement
from swiftdiff.bench.settings import AdapterSetting
from swiftdiff.bench.thread_count import best_thread_count, seconds_by_threads
from swiftdiff.report.picture_difference import PictureComparison, compare_pictures

STAGE_GROUPS: dict[str, tuple[str, ...]] = {
    "text": ("text_encode",),
    "LoRA": ("lora_load", "lora_wait", "lora_patch"),
    "CNet": ("control_image", "controlnet_load", "controlnet_wait"),
    "denoise": ("denoise",),
    "VAE": ("vae_decode",),
    "other": (),  # whatever is in no other group
    "restore": ("restore",),
}


@dataclass(frozen=True)
class CellResult:
    """One system in one setting of one model and view, over the repeats that did not fail.

    Attributes:
        setting: The setting.
        system: The system's name.
        exactness: What it declares.
        seconds: Latency and restore.
        restore_s: Median of the restore.
        speedup: Times faster than stock, paired within the repeats; None for stock, or without pairs.
        over_off: Times faster than the engine with every switch off; None likewise.
        stages_s: Mean seconds by group of stages, restore included: they add up to the mean of ``seconds``.
        lora_s: Median seconds a request stood still for its LoRAs, by part: load or wait, patch, restore.
        lora_ready_s: Median seconds until the last LoRA was read, for systems that tell.
        lora_speedup: Times that stock's sum of ``lora_s`` is this one's, paired; None likewise.
        loras: Ids, for systems that tell.
        device_seconds: Median of core-seconds a request.
        peak_host_bytes: Most resident memory of its process.
        bytes_loaded: Median bytes of adapters read.
        pictures: Compared with stock's; None for stock.
    """

    setting: AdapterSetting
    system: str
    exactness: str | None
    seconds: Spread
    restore_s: float
    speedup: Spread | None
    over_off: Spread | None
    stages_s: dict[str, float]
    lora_s: dict[str, float]
    lora_ready_s: float | None
    lora_speedup: Spread | None
    loras: tuple[str, ...]
    device_seconds: float
    peak_host_bytes: int
    bytes_loaded: int
    pictures: PictureComparison | None

    def to_json(self) -> dict[str, Any]:
        """Return the numbers for ``summary.json``."""
        pictures = self.pictures
        return {
            "setting": self.setting.name,
            "system": self.system,
            "exactness": self.exactness,
            "seconds": self.seconds.to_json(),
            "restore_s": self.restore_s,
            "speedup": self.speedup and self.speedup.to_json(),
            "speedup_over_all_off": self.over_off and self.over_off.to_json(),
            "stages_s": self.stages_s,
            "lora_s": self.lora_s,
            "lora_ready_s": self.lora_ready_s,
            "lora_speedup": self.lora_speedup and self.lora_speedup.to_json(),
            "device_seconds": self.device_seconds,
            "peak_host_memory_bytes": self.peak_host_bytes,
            "bytes_loaded": self.bytes_loaded,
            "max_pixel_difference": pictures and pictures.max_abs,
            "mean_pixel_difference": pictures and pictures.mean_abs,
        }


@dataclass(frozen=True)
class StageResult:
    """One model in one view.

    Attributes:
        model: The model's name.
        view: The view.
        stock_threads: Stock's threads.
        thread_seconds: Seconds by thread count that they were chosen by; empty if there was no choice.
        cells: By setting, and in each by system.
    """

    model: str
    view: View
    stock_threads: int
    thread_seconds: dict[int, float]
    cells: tuple[CellResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the numbers for ``summary.json``."""
        return {
            "model": self.model,
            "view": self.view,
            "stock_threads": self.stock_threads,
            "stock_seconds_by_threads": self.thread_seconds,
            "results": [cell.to_json() for cell in self.cells],
        }


@dataclass(frozen=True)
class BenchResult:
    """A benchmark's numbers.

    Attributes:
        options: What was to be measured.
        environment: Machine and software.
        stages: Those with measurements.
        failures: What failed, and why, each reason once a system and setting.
        num_measured: Measurements on disk, failed ones too.
        complete: Whether nothing is missing.
        other_share: Cores that other processes kept busy: median and highest over the measurements.
    """

    options: BenchOptions
    environment: dict[str, Any]
    stages: tuple[StageResult, ...]
    failures: tuple[str, ...]
    num_measured: int
    complete: bool
    other_share: tuple[float, float]

    @property
    def load_at_start(self) -> float:
        """The machine's load average before the benchmark, the highest of its sessions."""
        return max(float(session["load_1min"]) for session in self.environment["sessions"])

    def to_json(self) -> dict[str, Any]:
        """Return ``summary.json``."""
        return {
            "complete": self.complete,
            "options": self.options.model_dump(mode="json"),
            "load_1min_at_start": self.load_at_start,
            "other_processes_cores": {"median": self.other_share[0], "highest": self.other_share[1]},
            "num_measured": self.num_measured,
            "failures": list(self.failures),
            "stages": [stage.to_json() for stage in self.stages],
        }


def compute_results(
    options: BenchOptions,
    environment: dict[str, Any],
    measurements: Sequence[Measurement],
    folder: Path,
    *,
    complete: bool,
) -> BenchResult:
    """Compute a benchmark's numbers.

    Args:
        options: What was to be measured.
        environment: Machine and software.
        measurements: One a key, in any order.
        folder: That pictures' paths count from.
        complete: Whether all were made.
    """
    measured = [each for each in measurements if each.purpose == "measure"]
    stages = [
        _stage(model, view, measurements, folder)
        for model in dict.fromkeys(each.model for each in measured)
        for view in VIEWS
        if any(each.model == model and each.view == view for each in measured)
    ]
    failures: dict[str, int] = {}
    for each in measured:
        if each.error is not None:
            text = f"{each.model}, {each.view}, {each.setting} {each.system}: {each.error}"
            failures[text] = failures.get(text, 0) + 1
    shares = [each.other_share for each in measured if each.error is None] or [0.0]
    return BenchResult(
        options=options,
        environment=environment,
        stages=tuple(stages),
        failures=tuple(f"{text} ({count}×)" for text, count in failures.items()),
        num_measured=len(measured),
        complete=complete,
        other_share=(median(shares), max(shares)),
    )


@dataclass(frozen=True)
class Doubt:
    """Why numbers are worth less than they seem.

    Attributes:
        sentence: For the header.
        flag: For the title of every table; empty if the header is enough.
    """

    sentence: str
    flag: str = ""


def doubts_of(result: BenchResult) -> list[Doubt]:
    """Return what makes the numbers doubtful, loudest first; each flag once."""
    found = []
    typical, highest = result.other_share
    causes = []
    if result.load_at_start > MAX_IDLE_LOAD:
        causes.append(f"its load average was {result.load_at_start:.2f} at the start")
    if typical > MAX_OTHER_SHARE:
        causes.append(
            f"other processes kept {typical:.2f} cores busy while it measured (at most {highest:.2f})"
        )
    if causes:
        sentence = f"MACHINE NOT IDLE: {', and '.join(causes)}. These numbers are worth little."
        found.append(Doubt(sentence, "MACHINE NOT IDLE"))
    if not result.complete:
        found.append(Doubt(f"INCOMPLETE: {result.num_measured} measurements so far.", "INCOMPLETE"))
    if result.failures:
        found.append(Doubt(f"FAILURES: {len(result.failures)} kinds; they are at the end."))
    return found


def _stage(model: str, view: View, measurements: Sequence[Measurement], folder: Path) -> StageResult:
    cells: dict[tuple[AdapterSetting, str], list[Measurement]] = {}
    for each in measurements:
        if (each.purpose, each.model, each.view, each.error) == ("measure", model, view, None):
            cells.setdefault((AdapterSetting.parse(each.setting), each.system), []).append(each)
    order = sorted(cells, key=lambda cell: (_place(cell[0], measurements), SYSTEMS.index(cell[1])))
    seconds = seconds_by_threads(model, measurements) if view == "same-hardware" else {}
    stock = [each for (_, system), group in cells.items() if system == STOCK for each in group]
    return StageResult(
        model=model,
        view=view,
        stock_threads=best_thread_count(seconds, default=stock[0].threads if stock else 0),
        thread_seconds=seconds,
        cells=tuple(
            _cell(setting, system, cells[setting, system], cells, folder) for setting, system in order
        ),
    )


def _cell(
    setting: AdapterSetting,
    system: str,
    own: list[Measurement],
    cells: dict[tuple[AdapterSetting, str], list[Measurement]],
    folder: Path,
) -> CellResult:
    stock = cells.get((setting, STOCK), []) if system != STOCK else []
    off = cells.get((setting, ALL_OFF), []) if system not in (STOCK, ALL_OFF) else []
    seconds = spread_of([_total(each) for each in own])
    assert seconds is not None
    ready = [max(loads) for each in own if (loads := _lora_loads(each))]
    return CellResult(
        setting=setting,
        system=system,
        exactness=own[0].exactness,
        seconds=seconds,
        restore_s=median(each.restore_s or 0.0 for each in own),
        speedup=_speedup(stock, own, _total),
        over_off=_speedup(off, own, _total),
        stages_s=_mean_stages(own),
        lora_s={name: median(part(each) for each in own) for name, part in _LORA_PARTS.items()},
        lora_ready_s=median(ready) if ready else None,
        lora_speedup=_speedup(stock, own, _lora_total) if setting.num_loras else None,
        loras=tuple(adapter.id for adapter in own[0].adapters if adapter.kind == "lora"),
        device_seconds=median(each.device_seconds for each in own),
        peak_host_bytes=max(each.peak_host_bytes for each in own),
        bytes_loaded=int(median(each.bytes_loaded for each in own)),
        pictures=_compare(stock, own, folder) if stock else None,
    )


def _total(measured: Measurement) -> float:
    assert measured.total_s is not None  # failed ones are no part of a cell
    return measured.total_s


_LORA_PARTS: dict[str, Callable[[Measurement], float]] = {
    "load": lambda each: each.stages.get("lora_load", 0.0) + each.stages.get("lora_wait", 0.0),
    "patch": lambda each: each.stages.get("lora_patch", 0.0),
    "restore": lambda each: each.restore_s or 0.0,
}


def _lora_total(measured: Measurement) -> float:
    return sum(part(measured) for part in _LORA_PARTS.values())


def _lora_loads(measured: Measurement) -> list[float]:
    return [adapter.load_s for adapter in measured.adapters if adapter.kind == "lora"]


def _speedup(
    baseline: Sequence[Measurement], own: Sequence[Measurement], of: Callable[[Measurement], float]
) -> Spread | None:
    before, after = ({each.repeat: of(each) for each in group} for group in (baseline, own))
    return spread_of(pair_ratios(before, after))


def _mean_stages(own: Sequence[Measurement]) -> dict[str, float]:
    sums = dict.fromkeys(STAGE_GROUPS, 0.0)
    group_of = {stage: group for group, stages in STAGE_GROUPS.items() for stage in stages}
    for each in own:
        for name, seconds in (each.stages | {"restore": each.restore_s or 0.0}).items():
            sums[group_of.get(name, "other")] += seconds / len(own)
    return sums


def _compare(stock: Sequence[Measurement], own: Sequence[Measurement], folder: Path) -> PictureComparison:
    baseline = {each.repeat: each.picture for each in stock if each.picture is not None}
    return compare_pictures(
        (str(each.repeat), [folder / baseline[each.repeat]], [folder / each.picture])
        for each in own
        if each.picture is not None and each.repeat in baseline
    )


def _place(setting: AdapterSetting, measurements: Sequence[Measurement]) -> int:
    names = list(dict.fromkeys(each.setting for each in measurements if each.purpose == "measure"))
    return names.index(setting.name)
