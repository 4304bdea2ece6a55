"""Owns what the measurements of one system in one setting come to, alone and against stock's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from swiftdiff.bench.lineup import ALL_OFF, STOCK
from swiftdiff.bench.paired import Spread, pair_ratios, spread_of
from swiftdiff.bench.records import Measurement
from swiftdiff.bench.settings import AdapterSetting
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


def compute_cell(
    setting: AdapterSetting,
    system: str,
    own: list[Measurement],
    cells: dict[tuple[AdapterSetting, str], list[Measurement]],
    folder: Path,
) -> CellResult:
    """Compute one system's numbers in one setting.

    Args:
        setting: The setting.
        system: The system's name.
        own: Its measurements, at least one, none failed.
        cells: Those of all systems of the same model and view, by setting and system.
        folder: That pictures' paths count from.
    """
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
