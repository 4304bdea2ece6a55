"""Owns which tables a sweep of k has: the largest k by LoRA, the frontier, and where patches landed."""

from __future__ import annotations

from collections import Counter

from swiftdiff.compare.sweep_k_options import SweepOptions
from swiftdiff.compare.sweep_k_results import MEASURES, Point, SweepResult
from swiftdiff.report.tables import AUTO, Cell, Column, Table


def sweep_tables(result: SweepResult) -> list[Table]:
    """Return all tables but the detailed one; one that would be empty is left out."""
    tables = [largest_k_table(result), frontier_table(result), landed_table(result)]
    return [table for table in tables if table.rows]


def largest_k_table(result: SweepResult) -> Table:
    """Return by LoRA the largest k that keeps quality, and what it saves with this load time."""
    rows: list[tuple[Cell, ...]] = []
    for each in result.loras:
        if each.error is not None or not each.points:
            continue
        chosen, first = each.point(each.largest_k), each.point(0)
        rows.append((each.lora, each.largest_k, *_highs(chosen), _ms(first), _ms(chosen), each.reason or "–"))
    columns = (
        Column("LoRA"),
        Column("k", AUTO),
        Column("style –", ".3f"),
        Column("attr. –", ".3f"),
        Column("1–SSIM", ".3f"),
        Column("ms at 0", AUTO),
        Column("ms at k", AUTO),
        Column("what stops it"),
    )
    margin = ", ".join(f"{name} {share:g}" for name, share in result.margin.items())
    note = (
        f"k: the largest that loses at most the margin ({margin}), as all smaller ones that were measured "
        "do. What counts is the upper end of the loss's 95 % interval (paired bootstrap): it stands in the "
        "three columns. "
        f"ms: mean latency. {_pictures(result.options)} {load_note(result)}"
    )
    return Table("largest-k", "Largest k by LoRA", columns, tuple(rows), note)


def frontier_table(result: SweepResult) -> Table:
    """Return quality and latency by k, over all LoRAs."""
    return _frontier("frontier", "Quality and latency by k, all LoRAs", [("", result.overall)], result)


def detail_table(result: SweepResult) -> Table:
    """Return quality and latency by LoRA and k."""
    groups = [(each.lora, each.points) for each in result.loras]
    return _frontier("by-lora", "Quality and latency by LoRA and k", groups, result)


def landed_table(result: SweepResult) -> Table:
    """Return how often LoRAs were patched at which step while latency was measured."""
    early: Counter[int] = Counter()
    bound: Counter[int] = Counter()
    for point in result.overall:
        for step, count in point.landed.items():
            (bound if step == point.k else early)[step] += count
    rows = tuple((step, early[step], bound[step]) for step in sorted(early.keys() | bound.keys()))
    columns = (Column("step", AUTO), Column("arrived before its bound", AUTO), Column("at the bound", AUTO))
    return Table("landed", "Step at which patches landed", columns, rows, load_note(result))


def load_note(result: SweepResult) -> str:
    """Return a sentence that says what loading a LoRA took."""
    options, loads = result.options, [p.load_s for p in result.overall if p.load_s is not None]
    mean = f"{1000 * sum(loads) / len(loads):,.0f} ms from arrival to ready" if loads else "not measured"
    given = options.load_time_ms
    how = "as the store gives it" if given is None else f"{given:g} ms emulated, and the read itself"
    return f"Load time: {how}; {mean}."


def _frontier(
    name: str, title: str, groups: list[tuple[str, tuple[Point, ...]]], result: SweepResult
) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for label, points in groups:
        for point in points:
            measured = (_ms(point), None if point.wait_s is None else point.wait_s * 1000)
            scores = (point.scores.get("style"), point.scores.get("attributes"), point.scores.get("ssim"))
            values = tuple(None if score is None else score.value for score in scores)
            cells = (point.k, *values, point.psnr_db, point.mean_levels, *measured)
            rows.append((label, *cells) if label else cells)
    columns = (
        *((Column("LoRA"),) if groups and groups[0][0] else ()),
        Column("k", AUTO),
        Column("style", ".3f"),
        Column("attributes", ".3f"),
        Column("SSIM", ".3f"),
        Column("PSNR dB", ".1f"),
        Column("mean diff.", ".2f"),
        Column("latency ms", AUTO),
        Column("wait ms", AUTO),
    )
    note = (
        "SSIM, PSNR and mean difference (levels of 255) are against the picture at k = 0 of the same request "
        f"and seed. {_pictures(result.options)} {load_note(result)}"
    )
    return Table(name, title, columns, tuple(rows), note)


def _pictures(options: SweepOptions) -> str:
    return (
        f"For each LoRA and k: pictures {options.prompts}, latencies {options.repeats}; "
        f"{options.num_inference_steps} steps."
    )


def _highs(point: Point | None) -> list[Cell]:
    drops = [None if point is None else point.drops.get(name) for name in MEASURES]
    return [None if drop is None else max(0.0, drop.high) for drop in drops]


def _ms(point: Point | None) -> float | None:
    return None if point is None or point.latency is None else point.latency.value * 1000
