"""Fits a spec to observed requests, so that made-up traces are like them."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

import swiftdiff
from swiftdiff.files import write_whole
from swiftdiff.request import MAX_IMAGES, MAX_SIDE, MAX_STEPS, SIZE_MULTIPLE
from swiftdiff.trace.synthesis.adapters import MAX_PER_REQUEST, Adapters, ControlNets
from swiftdiff.trace.synthesis.arrivals import Arrivals
from swiftdiff.trace.synthesis.draws import Choice, Range
from swiftdiff.trace.synthesis.fit_gaps import fit_gaps, resolution_of
from swiftdiff.trace.synthesis.fit_locality import fit_locality
from swiftdiff.trace.synthesis.observations import Floats, Observations, Uses
from swiftdiff.trace.synthesis.spec import Pictures, Prompts, TraceSpec
from swiftdiff.trace.synthesis.zipf import Zipf

_T = TypeVar("_T", int, float, tuple[int, int])

_MOST_VALUES = 16
_MOST_NAMED = 64
_EXPONENTS = np.arange(0, 4.01, 0.05)
_KINDS = ("edges", "depth", "layout")
_LOAD_QUANTILES = 40
_HOW_TO_READ = (
    "[arrivals.gaps] has quantiles of the gaps between arrivals, by how much they are longer (above 0) or "
    "shorter in each hour of the day, and how long busy times last.",
    "[loras.locality] has the share of uses by reuse distance: 1 is the LoRA used last. The last weight is "
    "that of new LoRAs.",
)


def fit_spec(observed: Observations, load_times: str | None = None) -> TraceSpec:
    """Return the spec that observed requests suggest.

    Args:
        observed: At least two requests.
        load_times: Name of the file of load times that goes with the spec.
    """
    resolution_s = resolution_of(observed.arrivals_s)
    return TraceSpec(
        requests=len(observed.loras),
        resolution_ms=round(resolution_s * 1000, 3),
        load_times=load_times,
        arrivals=Arrivals(gaps=fit_gaps(observed.arrivals_s, resolution_s)),
        prompts=Prompts(),
        pictures=_pictures(observed),
        loras=_loras(observed),
        controlnets=_controlnets(observed),
    )


def assumptions(observed: Observations) -> dict[str, str]:
    """Return what a fit makes up because the source lacks it, by part of the spec."""
    made_up = dict(observed.filled_in)
    if any(observed.loras):
        made_up["loras"] = "their names; replay with `--adapters alias`"
    if _controlnets_by_loads(observed) is not None:
        made_up["controlnets"] = (
            "no request of the source names one: their share is that of LoRAs times measured loads of "
            "ControlNets over those of LoRAs; which ones is made up"
        )
    return made_up


def write_spec(path: Path, spec: TraceSpec, observed: Observations) -> None:
    """Write a fitted spec with a header that says what it was fitted to; whole or not at all.

    Raises:
        StorageError: It cannot be written.
    """
    lines = [f"Fitted by `swiftdiff trace fit` (swiftdiff {swiftdiff.__version__}) to"]
    lines += [f"  {source.name} (SHA-256 {source.sha256[:16]}...)" for source in observed.sources]
    lines += [*_HOW_TO_READ, "Made up, because the source lacks it:"]
    lines += [f"  {part}: {how}." for part, how in sorted(assumptions(observed).items())]
    header = "".join(
        textwrap.fill(line, 108, initial_indent="# ", subsequent_indent="#     ") + "\n" for line in lines
    )
    write_whole(path, f"{header}\n{spec.to_toml()}".encode())


def write_load_times(path: Path, load_times_s: dict[str, Floats]) -> None:
    """Write quantiles of measured load times as a file that ``[adapters.emulate]`` can name.

    Each kind has the middles of 40 equal shares of its times, so that drawing one of them with equal chances
    is like drawing from the measured ones, but for the slowest and fastest 1 %.

    Raises:
        StorageError: It cannot be written.
    """
    shares = (np.arange(_LOAD_QUANTILES) + 0.5) / _LOAD_QUANTILES
    rows = [
        f"{kind},{value:.3f}\n"
        for kind, times in sorted(load_times_s.items())
        for value in np.quantile(times, shares)
    ]
    write_whole(path, ("kind,load_s\n" + "".join(rows)).encode())


def _pictures(observed: Observations) -> Pictures:
    settings = observed.settings
    steps = _within(settings.get("num_inference_steps", []), 1, MAX_STEPS)
    images = _within(settings.get("num_images", []), 1, MAX_IMAGES)
    guidance = [float(value) for value in settings.get("guidance_scale", []) if not isinstance(value, tuple)]
    slos = [float(value) for value in settings.get("slo_ms", []) if not isinstance(value, tuple)]
    sizes = [size for size in settings.get("size", []) if isinstance(size, tuple) and _servable(size)]
    fields = {
        "num_inference_steps": _choice(steps) if steps else None,
        "num_images": _choice(images) if images else None,
        "guidance_scale": _range([value for value in guidance if value >= 0]) if guidance else None,
        "size": _choice(sizes) if sizes else None,
        "slo_ms": _range(slos) if len(slos) == len(observed.loras) else None,
    }
    return Pictures.model_validate({name: value for name, value in fields.items() if value is not None})


def _loras(observed: Observations) -> Adapters | None:
    locality = fit_locality(observed.loras, "lora-")
    if locality is None:
        named = sorted({name for request in observed.loras for name in request})
        if not named:
            return None
        # Each was used once: nothing tells how they recur.
        zipf = Zipf(count=len(named), prefix="lora-", exponent=0.0)
        return Adapters(per_request=_numbers(observed.loras), scale=_range(observed.lora_scales), zipf=zipf)
    return Adapters(
        per_request=_numbers(observed.loras), scale=_range(observed.lora_scales), locality=locality
    )


def _controlnets(observed: Observations) -> ControlNets | None:
    names = Counter(name for request in observed.controlnets for name in request)
    if not names:
        share = _controlnets_by_loads(observed)
        if share is None:
            return None
        number = Choice[int](values=(0, 1), weights=(round(1 - share, 4), round(share, 4)))
        return ControlNets(per_request=number, scale=_range([1.0]), zipf=Zipf(ids=_KINDS, exponent=1.0))
    ranked = [name for name, _ in sorted(names.items(), key=lambda item: (-item[1], item[0]))]
    exponent = _zipf_exponent(np.array([names[name] for name in ranked], dtype=float))
    zipf = (
        Zipf(ids=tuple(ranked), exponent=exponent)
        if len(ranked) <= _MOST_NAMED
        else Zipf(count=len(ranked), prefix="controlnet-", exponent=exponent)
    )
    return ControlNets(
        per_request=_numbers(observed.controlnets), scale=_range(observed.controlnet_scales), zipf=zipf
    )


def _controlnets_by_loads(observed: Observations) -> float | None:
    """Return the share of requests that would have a ControlNet if those were loaded as often as they are."""
    loads = {kind: len(times) for kind, times in observed.load_times_s.items()}
    if any(observed.controlnets) or not all(loads.get(kind) for kind in ("lora", "controlnet")):
        return None
    uses = sum(map(len, observed.loras)) / len(observed.loras)
    return min(uses * loads["controlnet"] / loads["lora"], 1.0)


def _zipf_exponent(counts: Floats) -> float:
    """Return the exponent under which counts, sorted by rank, are likeliest."""
    logs = np.log(np.arange(1, len(counts) + 1))
    likelihoods = [-s * (counts @ logs) - counts.sum() * np.log(np.exp(-s * logs).sum()) for s in _EXPONENTS]
    return round(float(_EXPONENTS[int(np.argmax(likelihoods))]), 2)


def _numbers(requests: Uses) -> Choice[int]:
    return _choice([min(len(request), MAX_PER_REQUEST) for request in requests], most=MAX_PER_REQUEST)


def _choice(values: Sequence[_T], most: int = _MOST_VALUES) -> Choice[_T]:
    """Return the most frequent values with their shares, in rising order."""
    counts = Counter(values).most_common(most)
    total = sum(count for _, count in counts)
    ordered = sorted(counts)
    return Choice(
        values=tuple(value for value, _ in ordered),
        weights=tuple(round(count / total, 5) for _, count in ordered),
    )


def _range(values: Sequence[float]) -> Range:
    choice = _choice([round(value, 3) for value in values] or [1.0])
    return Range(values=choice.values, weights=choice.weights)


def _within(values: Sequence[object], low: int, high: int) -> list[int]:
    return [value for value in values if isinstance(value, int) and low <= value <= high]


def _servable(size: tuple[int, int]) -> bool:
    return all(0 < side <= MAX_SIDE and side % SIZE_MULTIPLE == 0 for side in size)
