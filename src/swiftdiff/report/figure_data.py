"""Reads from published JSON what figures are drawn of. Nothing is computed anew and nothing left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from swiftdiff.errors import StorageError
from swiftdiff.report.figure_kinds import Bars, Curves, Figure, Measured, Points, Steps

ABLATION_MARK = "all-off"
_SETTING_SUFFIX = ", mean ms"


#: The figures of the paper, by kind: what makes one, for those that have none yet.
KINDS: dict[str, str] = {
    "latency by adapter setting": "swiftdiff bench, or swiftdiff compare on requests of several settings",
    "ablation": "swiftdiff bench with its default systems, or swiftdiff compare of one switch after another",
    "k against quality": "swiftdiff sweep-k",
    "speed against quality": "swiftdiff compare with approximate systems",
    "throughput against load": "swiftdiff compare --sweep-rate",
}


def find_figures(published: Path) -> Iterator[tuple[str, Figure]]:
    """Yield what can be drawn of the JSON files below a folder, each with its kind.

    Raises:
        StorageError: The folder cannot be read, or a file in it is damaged.
    """
    if not published.is_dir():
        raise StorageError(f"{published} is no folder")
    for path in sorted((*published.rglob("summary.json"), *published.rglob("comparison.json"))):
        values = _read(path)
        place = path.parent.relative_to(published).parts
        name = "-".join(part for part in place if part != "comparison") or published.resolve().name
        try:
            yield from _figures_of(name, values)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise StorageError(f"{path} is damaged, or of another version: {error!r}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise StorageError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise StorageError(f"{path} is damaged: an object was expected")
    return values


def _figures_of(name: str, values: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    if "stages" in values and isinstance(values["stages"], list):
        yield from _of_bench(name, values["stages"])
    elif "ks" in values and "overall" in values:
        yield "k against quality", _of_k_sweep(name, values)
    elif "sweep" in values:
        yield "throughput against load", _of_rate_sweep(name, values["sweep"])
    elif "runs" in values:
        yield from _of_comparison(name, values)


def _of_bench(name: str, stages: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Figure]]:
    for stage in stages:
        results: list[dict[str, Any]] = stage["results"]
        settings = tuple(dict.fromkeys(result["setting"] for result in results))
        systems = tuple(dict.fromkeys(result["system"] for result in results))
        seconds = {(result["setting"], result["system"]): _spread(result) for result in results}
        place = f"{stage['model']}, {stage['view'].replace('-', ' ')}"
        slug = f"{name}-{stage['model']}-{stage['view']}"
        if ABLATION_MARK in systems:
            for setting in settings:
                here = {
                    system: seconds[setting, system] for system in systems if (setting, system) in seconds
                }
                yield (
                    "ablation",
                    Bars(
                        f"{slug}-{setting.replace('/', '-')}-ablation",
                        f"Each switch alone: {place}, {setting}",
                        tuple(here),
                        {setting: tuple(here.values())},
                        "range of the repeats",
                    ),
                )
        elif len(settings) > 1:
            series = {
                system: tuple(seconds.get((setting, system)) for setting in settings) for system in systems
            }
            title = f"Latency by adapter setting: {place}"
            yield (
                "latency by adapter setting",
                Bars(f"{slug}-latency", title, settings, series, "range of the repeats"),
            )


def _of_comparison(name: str, values: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    runs: list[dict[str, Any]] = values["runs"]
    labels = [str(run["label"]) for run in runs]
    place = f"{runs[0]['model']} on {Path(runs[0]['trace']).name}"
    rows: list[dict[str, Any]] = values.get("tables", {}).get("settings", [])
    settings = list(zip(rows[::2], rows[1::2], strict=True))  # milliseconds, and below them ratios
    if settings:
        groups = tuple(str(row["measure"]).removesuffix(_SETTING_SUFFIX) for row, _ in settings)
        # what `swiftdiff compare --ablation` adds has a figure of its own below
        named = [label for label in labels if label != "all-off" and not label.startswith("+")]
        series = {label: tuple(_of_setting(label, *both) for both in settings) for label in named}
        title = f"Service by adapter setting: {place}"
        yield "latency by adapter setting", Bars(f"{name}-latency", title, groups, series, "")
    steps: list[dict[str, Any]] = values.get("waterfall", [])
    if len(steps) > 2:
        shown = tuple((str(step["switched_on"]), _estimate(step["mean_latency_s"])) for step in steps)
        yield "ablation", Steps(f"{name}-ablation", f"One more switch at each step: {place}", shown)
    qualities = {str(each["system"]): each for each in values.get("quality", [])}
    if any(each["exactness"] == "approximate" for each in qualities.values()):
        points = {
            label: (float(run["mean_service_ms"]) / 1000, _quality_of(qualities.get(label)))
            for label, run in zip(labels, runs, strict=True)
            if run["mean_service_ms"] is not None
        }
        yield (
            "speed against quality",
            Points(f"{name}-speed-quality", f"Speed against quality: {place}", points),
        )


def _of_k_sweep(name: str, values: dict[str, Any]) -> Curves:
    measures = sorted({measure for point in values["overall"] for measure in point["scores"]})
    lines: dict[str, list[dict[str, Any]]] = {
        lora: each["points"] for lora, each in values["loras"].items() if each["points"]
    } | {"all LoRAs": values["overall"]}
    panels = {f"{measure} score": _lines(lines, _score_of(measure)) for measure in measures}
    scores = frozenset(panels)
    panels["latency, s"] = _lines(lines, lambda point: point["latency"])
    title = (
        f"k against quality: {Path(values['model']).name}, {values['num_inference_steps']} steps, "
        f"{values['prompts']} pictures a LoRA and k"
    )
    drawn = {panel: shown for panel, shown in panels.items() if shown}
    return Curves(f"{name}-k-quality", title, "k: steps without the LoRA", drawn, "all LoRAs", scores)


def _of_rate_sweep(name: str, sweep: dict[str, Any]) -> Curves:
    systems: list[dict[str, Any]] = sweep["systems"]
    panels: dict[str, dict[str, tuple[tuple[float, Measured], ...]]] = {}
    for panel, key, scale in (
        ("goodput, requests/s", "request_goodput", 1.0),
        ("p90 latency, s", "p90_e2el_ms", 1e-3),
        ("requests within their SLO, %", "slo_attainment_rate", 100.0),
    ):
        panels[panel] = {
            str(each["system"]): tuple(
                (float(probe["rate"]), Measured(float(probe[key]) * scale))
                for probe in each["probes"]
                if probe["rate"] is not None and probe.get(key) is not None
            )
            for each in systems
        }
    title = "Throughput against load: the highest rate that holds is " + ", ".join(
        f"{each['highest_rate_held'] or 'none'} ({each['system']})" for each in systems
    )
    return Curves(f"{name}-load", title, "arrivals, requests/s", panels)


def _score_of(measure: str) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    def score(point: dict[str, Any]) -> dict[str, Any] | None:
        found: dict[str, Any] | None = point["scores"].get(measure)
        return found

    return score


def _lines(
    lines: Mapping[str, Sequence[dict[str, Any]]],
    value: Callable[[dict[str, Any]], dict[str, Any] | None],
) -> dict[str, tuple[tuple[float, Measured], ...]]:
    drawn = {
        line: tuple(
            (float(point["k"]), _estimate(found)) for point in points if (found := value(point)) is not None
        )
        for line, points in lines.items()
    }
    return {line: points for line, points in drawn.items() if points}


def _spread(result: dict[str, Any]) -> Measured:
    seconds, speedup = result["seconds"], result["speedup"]
    return Measured(
        float(seconds["median"]),
        float(seconds["low"]),
        float(seconds["high"]),
        None if speedup is None else float(speedup["median"]),
    )


def _estimate(values: dict[str, Any]) -> Measured:
    return Measured(float(values["value"]), float(values["low"]), float(values["high"]))


def _of_setting(label: str, times_ms: dict[str, Any], ratios: dict[str, Any]) -> Measured | None:
    milliseconds, speedup = times_ms[label], ratios[label]
    return None if milliseconds is None else Measured(float(milliseconds) / 1000, speedup=speedup)


def _quality_of(quality: dict[str, Any] | None) -> Measured:
    """Return the SSIM with the baseline's pictures; the baseline has none, and is itself."""
    found = None if quality is None else quality["ssim"]
    return Measured(1.0) if found is None else _estimate(found)
