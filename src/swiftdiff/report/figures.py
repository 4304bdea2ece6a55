"""Draws figures in the paper's manner from published results.

``python -m swiftdiff.report.figures`` draws what the JSON files below ``results/published`` allow, and says
which figures are missing and what makes them.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swiftdiff.errors import StorageError, SwiftdiffError
from swiftdiff.report.figure_data import KINDS, find_figures
from swiftdiff.report.figure_kinds import Bars, Curves, Figure, Measured, Points, Steps

BASELINE, FIRST, FAINT = "#8c959f", "#1f5fa8", 0.45
LESS, MORE = "#2e7d32", "#b3261e"
_COLOURS = (BASELINE, FIRST, "#e08a1e", "#59a14f", "#7b5ea7", "#b3261e", "#00796b", "#9c755f")
_DPI = 130


def draw_figure(shown: Figure, path: Path) -> None:
    """Write a figure.

    Args:
        shown: What is drawn.
        path: The file; its suffix, ``.png`` or ``.svg``, says how.

    Raises:
        StorageError: It cannot be written.
    """
    # Agg through the figure itself: pyplot would keep global state and may look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Sheet

    sheet = Sheet(layout="constrained")
    FigureCanvasAgg(sheet)
    if isinstance(shown, Bars):
        _draw_bars(sheet, shown)
    elif isinstance(shown, Steps):
        _draw_steps(sheet, shown)
    elif isinstance(shown, Curves):
        _draw_curves(sheet, shown)
    else:
        _draw_points(sheet, shown)
    partial = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without date and version the same numbers are the same file.
        sheet.savefig(partial, dpi=_DPI, metadata={"Date" if path.suffix == ".svg" else "Software": None})
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def _draw_bars(sheet: Any, shown: Bars) -> None:
    if len(shown.series) == 1:
        _draw_one_series(sheet, shown)
        return
    sheet.set_size_inches(max(6.0, 1.3 * len(shown.groups)), 4.2)
    axes = sheet.subplots()
    width = 0.8 / len(shown.series)
    for number, (name, values) in enumerate(shown.series.items()):
        for group, measured in enumerate(values):
            if measured is None:
                continue
            at = group + (number - (len(shown.series) - 1) / 2) * width
            axes.bar(at, measured.value, width * 0.92, color=_colour(number), label=_once(axes, name))
            _whisker(axes, at, measured)
            if measured.speedup is not None:
                axes.annotate(
                    f"{measured.speedup:.2f}×",
                    (at, measured.top),
                    xytext=(0, 2),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7,
                    rotation=90 if len(shown.series) > 3 else 0,
                )
    axes.set_xticks(range(len(shown.groups)), shown.groups)
    axes.margins(y=0.16)
    axes.set(ylabel="seconds", ylim=(0, None))
    _dress(axes, shown.title, shown.spread)
    _legend(sheet, axes)


def _draw_one_series(sheet: Any, shown: Bars) -> None:
    """Draw one group's bars lying, with each one's ratio to the first."""
    (values,) = shown.series.values()
    sheet.set_size_inches(7.5, 0.42 * len(values) + 1.4)
    axes = sheet.subplots()
    for row, measured in enumerate(values):
        if measured is None:
            continue
        axes.barh(row, measured.value, 0.7, color=BASELINE if row == 0 else FIRST)
        if measured.low is not None and measured.high is not None:
            axes.hlines(row, measured.low, measured.high, color="black", lw=1)
        ratio = "" if measured.speedup is None else f", {measured.speedup:.2f}×"
        axes.annotate(f" {measured.value:.2f} s{ratio}", (measured.top, row), va="center", fontsize=8)
    axes.set_yticks(range(len(shown.groups)), shown.groups)
    axes.invert_yaxis()
    axes.set(xlabel="seconds", xlim=(0, 1.3 * max(each.top for each in values if each is not None)))
    _dress(axes, shown.title, shown.spread)


def _draw_steps(sheet: Any, shown: Steps) -> None:
    sheet.set_size_inches(8.0, 0.42 * len(shown.steps) + 1.4)
    axes = sheet.subplots()
    before: Measured | None = None
    for row, (_, measured) in enumerate(shown.steps):
        if before is None:
            axes.barh(row, measured.value, 0.7, color=BASELINE)
        else:
            colour = LESS if measured.value <= before.value else MORE
            axes.barh(row, measured.value - before.value, 0.7, left=before.value, color=colour)
        if measured.low is not None and measured.high is not None:
            axes.hlines(row, measured.low, measured.high, color="black", lw=1)
        end = max(measured.top, 0.0 if before is None else before.value)
        axes.annotate(f" {measured.value:.2f} s", (end, row), va="center", fontsize=8)
        before = measured
    axes.set_yticks(range(len(shown.steps)), [label for label, _ in shown.steps])
    axes.invert_yaxis()
    axes.set(xlabel="mean seconds a request", xlim=(0, 1.15 * max(each.top for _, each in shown.steps)))
    _dress(axes, shown.title, "95 % intervals")


def _draw_curves(sheet: Any, shown: Curves) -> None:
    number = len(shown.panels)
    columns = number if number <= 3 else 2
    rows = -(-number // columns)
    sheet.set_size_inches(5.2 * columns, 3.6 * rows + 0.8)
    sheet.suptitle(shown.title, fontsize=11, wrap=True)
    places = sheet.subplots(rows, columns, squeeze=False).ravel()
    names = list(dict.fromkeys(line for lines in shown.panels.values() for line in lines))
    for axes, (left, lines) in zip(places, shown.panels.items(), strict=False):
        for line, points in lines.items():
            strong = line == shown.emphasis or not shown.emphasis
            place = names.index(line)
            faint = f"C{place % 10}" if shown.emphasis else _colour(place)
            colour = "black" if line == shown.emphasis else faint
            across = [at for at, _ in sorted(points, key=lambda point: point[0])]
            values = [measured for _, measured in sorted(points, key=lambda point: point[0])]
            axes.plot(
                across,
                [measured.value for measured in values],
                color=colour,
                lw=2 if strong else 1.2,
                alpha=1 if strong else 0.8,
                marker="o" if strong else None,
                ms=4,
                label=line,
            )
            if strong and all(each.low is not None and each.high is not None for each in values):
                low, high = [each.low for each in values], [each.high for each in values]
                axes.fill_between(across, low, high, color=colour, alpha=0.15, lw=0)
        axes.set(xlabel=shown.across, ylabel=left)
        if left not in shown.zoomed:
            axes.set_ylim(0, None)
        axes.grid(alpha=0.25)
    for axes in places[number:]:
        axes.axis("off")
    _legend(sheet, places[0])


def _draw_points(sheet: Any, shown: Points) -> None:
    sheet.set_size_inches(6.5, 4.2)
    axes = sheet.subplots()
    for number, (name, (seconds, quality)) in enumerate(shown.points.items()):
        axes.plot(seconds, quality.value, "o", color=_colour(number))
        if quality.low is not None and quality.high is not None:
            axes.vlines(seconds, quality.low, quality.high, color=_colour(number), lw=1)
        axes.annotate(name, (seconds, quality.value), xytext=(5, -10), textcoords="offset points", fontsize=8)
    axes.set(xlabel="mean seconds of service", ylabel="SSIM with the baseline's pictures")
    axes.margins(0.15)
    _dress(axes, shown.title, "95 % intervals")


def _legend(sheet: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = min(len(labels), 5) or 1
    sheet.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def _dress(axes: Any, title: str, spread: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    if spread:
        axes.annotate(
            f"lines: {spread}",
            (1, 0),
            xycoords="axes fraction",
            xytext=(0, -28),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=7,
            color="#57606a",
        )
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


def _whisker(axes: Any, at: float, measured: Measured) -> None:
    if measured.low is not None and measured.high is not None:
        axes.vlines(at, measured.low, measured.high, color="black", lw=1)


def _once(axes: Any, name: str) -> str | None:
    """Return a label for the legend, None if it has it already."""
    return None if name in axes.get_legend_handles_labels()[1] else name


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def main(argv: Sequence[str] | None = None) -> int:
    """Draw all figures; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m swiftdiff.report.figures", description=__doc__)
    parser.add_argument("published", type=Path, nargs="?", default=Path("results/published"))
    parser.add_argument("--out", type=Path, help="a folder (default: figures in the published one)")
    parser.add_argument("--format", choices=("png", "svg"), default="png")
    given = parser.parse_args(argv)
    out = given.out or given.published / "figures"
    drawn = set()
    try:
        for kind, shown in find_figures(given.published):
            path = out / f"{shown.name}.{given.format}"
            draw_figure(shown, path)
            drawn.add(kind)
            print(f"{kind}: {path}")
    except SwiftdiffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for kind, maker in KINDS.items():
        if kind not in drawn:
            print(f"{kind}: not drawn, no published result has it; it comes from {maker}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
