"""Draws a sweep of k: quality and latency against k, and where patches landed. Data stay as measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from swiftdiff.compare.sweep_k_options import Measure
from swiftdiff.compare.sweep_k_results import MEASURES, Point, SweepResult
from swiftdiff.compare.sweep_k_tables import landed_table, load_note

OVERALL, EARLY, BOUND = "black", "#1f5fa8", "#e08a1e"
_NAMES: dict[Measure, str] = {
    "style": "style score",
    "attributes": "attribute score",
    "ssim": "SSIM with k = 0",
}
_Value = Callable[[Point], tuple[float, float, float] | None]


def draw_sweep(result: SweepResult, path: Path) -> None:
    """Write the plot as PNG.

    Args:
        result: What is drawn.
        path: The file; its folder exists.
    """
    # Agg through the figure itself: pyplot would keep global state and may look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measures = [name for name in MEASURES if any(name in point.scores for point in result.overall)]
    figure = Figure(figsize=(11, 3.6 * ((len(measures) + 3) // 2)), layout="constrained")
    FigureCanvasAgg(figure)
    options = result.options
    figure.suptitle(
        f"LoRAs patched late: {Path(options.config.model).name}, {options.num_inference_steps} steps, "
        f"{options.prompts} pictures a LoRA and k\n{load_note(result)}",
        fontsize=11,
    )
    axes = list(figure.subplots((len(measures) + 3) // 2, 2).ravel())
    for place, name in zip(axes, measures, strict=False):
        _draw_lines(place, result, _score_of(name))
        place.set(ylabel=_NAMES[name], xlabel="k: steps without the LoRA")
        place.set_title(f"{_NAMES[name][:1].upper()}{_NAMES[name][1:]}", loc="left")
    latency, landed, *spare = axes[len(measures) :]
    _draw_lines(latency, result, _latency_of)
    latency.set(ylabel="seconds", xlabel="k: steps without the LoRA", ylim=(0, None))
    latency.set_title("Latency", loc="left")
    _draw_landed(landed, result)
    for place in spare:
        place.axis("off")
        place.legend(*axes[0].get_legend_handles_labels(), loc="center", ncols=2, frameon=False)
    figure.savefig(path, dpi=110)


def _score_of(name: Measure) -> _Value:
    def value(point: Point) -> tuple[float, float, float] | None:
        score = point.scores.get(name)
        return None if score is None else (score.value, score.low, score.high)

    return value


def _latency_of(point: Point) -> tuple[float, float, float] | None:
    latency = point.latency
    return None if latency is None else (latency.value, latency.low, latency.high)


def _draw_lines(axes: Any, result: SweepResult, value: _Value) -> None:
    """Draw a line a LoRA, its largest k as a ring, and the mean of all with its interval."""
    for number, each in enumerate(result.loras):
        known = [(point.k, found[0]) for point in each.points if (found := value(point)) is not None]
        colour = f"C{number % 10}"
        axes.plot(*zip(*known, strict=True) if known else ((), ()), color=colour, lw=1.2, label=each.lora)
        rings = [pair for pair in known if pair[0] == each.largest_k]
        axes.plot(*zip(*rings, strict=True) if rings else ((), ()), "o", color=colour, fillstyle="none")
    if len(result.loras) > 1:
        overall = [(point.k, *bounds) for point in result.overall if (bounds := value(point)) is not None]
        ks, means, low, high = zip(*overall, strict=True) if overall else ((), (), (), ())
        axes.plot(ks, means, color=OVERALL, lw=2, label="all")
        axes.fill_between(ks, low, high, color=OVERALL, alpha=0.15, lw=0)
    axes.plot([], [], "o", color=OVERALL, fillstyle="none", label="largest k within the margin")
    _whole_numbers(axes)
    axes.grid(alpha=0.25)


def _draw_landed(axes: Any, result: SweepResult) -> None:
    rows = landed_table(result).rows
    steps, early, bound = zip(*rows, strict=True) if rows else ((), (), ())
    axes.bar(steps, early, color=EARLY, label="arrived before its bound")
    axes.bar(steps, bound, bottom=early, color=BOUND, label="at the bound")
    axes.set(xlabel="step", ylabel="patches", xlim=(-0.7, result.options.num_inference_steps - 0.3))
    axes.set_title("Step at which patches landed, all k", loc="left")
    axes.legend(frameon=False, fontsize=9)
    _whole_numbers(axes)
    axes.grid(alpha=0.25)


def _whole_numbers(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
