"""Pages of comparisons that show everything a page can show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from swiftdiff.report.html import (
    ComparisonPage,
    Frontier,
    FrontierPoint,
    LatencyDistribution,
    PageSpan,
    PicturePair,
    RequestTimeline,
    WaterfallStep,
)
from swiftdiff.report.tables import AUTO, Column, Table

#: Escaping it wrong would break the page or run in it.
NASTY = '<script>alert("1")</script> & "quotes"'


def make_table(name: str, num_systems: int = 3) -> Table:
    columns = (Column("measure"), *(Column(f"system-number-{i}", AUTO) for i in range(num_systems)))
    rows = tuple((f"row {r}", *(r * 1000.5 + i for i in range(num_systems))) for r in range(4))
    return Table(name, f"Table {name}", columns, rows, note=f"A note on {name}.")


def make_timeline(system: str, queued_s: float = 0.5) -> RequestTimeline:
    spans = [
        PageSpan("request", "queue", 0.0, queued_s),
        PageSpan("request", "service", queued_s, queued_s + 1.0),
        PageSpan("swiftdiff-load lora_0", "lora_load", queued_s - 0.2, queued_s + 0.3, {"adapter": "neon"}),
        PageSpan("server", "denoise", queued_s + 0.1, queued_s + 0.9),
    ]
    for step in range(8):
        at_s = queued_s + 0.1 + step * 0.1
        spans.append(PageSpan("server", "step", at_s, at_s + 0.1, {"step": step}))
        spans += [PageSpan(f"lane cpu:{i}", "unet_encode", at_s, at_s + 0.05, {"step": step}) for i in (0, 1)]
    return RequestTimeline(system, "r7", queued_s + 1.0, tuple(spans))


def make_page(folder: Path) -> ComparisonPage:
    """Return a full page; its pictures are written into ``folder``."""
    before, after = folder / "before.png", folder / "after.png"
    pixels = np.full((64, 96, 3), 100, np.uint8)
    Image.fromarray(pixels).save(before)
    pixels[:32] += 5
    Image.fromarray(pixels).save(after)
    systems = ("stock", "swiftdiff", "swiftdiff-with-a-long-name")
    points = tuple(FrontierPoint(f"k={k}", 2 - k / 10, 1 - k / 50, 0.95 - k / 50, 1.0) for k in (0, 2, 4, 8))
    return ComparisonPage(
        title=f"3 systems on {NASTY}",
        answer="swiftdiff is 1.46 times as fast as stock.",
        headline=make_table("headline", 6),
        baseline="stock",
        warnings=(f"NOT COMPARABLE: {NASTY}",),
        facts=(("Trace", NASTY), ("Machine", "two cores " * 20)),
        tables=(make_table("stages"), make_table("costs", 12)),
        waterfall=(
            WaterfallStep("stock", 2.0, 1.9, 2.1),
            WaterfallStep("latent_parallelism", 1.5, 1.4, 1.6),
            WaterfallStep("controlnet_offload", 1.6),
        ),
        distributions=tuple(
            LatencyDistribution(name, tuple(np.linspace(1, 3 - i, 40))) for i, name in enumerate(systems)
        ),
        frontiers=(Frontier("k", "SSIM", points, FrontierPoint("stock", 2.1, 1.0)),),
        timelines=(make_timeline("stock", 20.0), make_timeline("swiftdiff")),
        pictures=(
            PicturePair("swiftdiff", "r1", 0, NASTY, before, after, "SSIM 0.9"),
            PicturePair("swiftdiff", "r2", 1, "", before, before),
            PicturePair("swiftdiff", "r3", 0, "gone", before, folder / "gone.png"),
        ),
    )


def make_smallest_page() -> ComparisonPage:
    """Return a page with nothing that may be left out."""
    return ComparisonPage("2 runs", "", replace(make_table("headline"), rows=()), "stock")
