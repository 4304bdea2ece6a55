"""A system that serves LoRAs wrongly is caught by its pictures, on real replays of the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swiftdiff.compare.broken import write_broken_system
from swiftdiff.compare.quality import measure_quality
from swiftdiff.config import ServingConfig, load_config
from swiftdiff.engine.options import ClosedLoad, ReplayOptions
from swiftdiff.engine.session import resolve_paths, start_run
from swiftdiff.quality.picture_judge import PictureJudge
from swiftdiff.quality.quality_report import QualityReport
from swiftdiff.quality.verdict import verdict_of
from swiftdiff.report.quality_tables import quality_tables
from swiftdiff.report.tables import to_markdown
from swiftdiff.request import ImageRequest, LoraUse
from swiftdiff.systems import build_system
from swiftdiff.systems.base import Served
from swiftdiff.trace.writer import write_trace

STYLES = ("neon", "sketch", "pixel", "gold", "stripes", "blueprint")
CAPTIONS = (
    "a large red circle above a small blue square on a sand background",
    "a large yellow star in the middle on a charcoal background",
)


class WithoutLoras:
    """A system that forgets LoRAs, and declares that its pictures are approximate."""

    exactness = "approximate"

    def __init__(self, config: ServingConfig) -> None:
        self._system = build_system(config)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)

    def serve(self, request: ImageRequest, images_root: Path) -> Served:
        return self._system.serve(request.model_copy(update={"loras": ()}), images_root)


class Bench:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.judge = PictureJudge()
        requests = [
            ImageRequest(
                request_id=name,
                timestamp=0,
                prompt=CAPTIONS[number % 2],
                num_inference_steps=8,
                guidance_scale=4.5,
                seed=number,
                loras=(LoraUse(id=name),) if name in STYLES else (),
            )
            for number, name in enumerate((*STYLES, "plain"))
        ]
        write_trace(root / "trace.jsonl", requests)
        self.stock = self.replay("stock")

    def replay(self, name: str, config: ServingConfig | None = None, build: Any = build_system) -> Path:
        config = config or ServingConfig(name=name, engine="diffusers", model="shapes")
        options = ReplayOptions(load=ClosedLoad(max_concurrency=1))
        ended = start_run(self.root / "trace.jsonl", config, options, self.root / name, argv=[], build=build)
        assert ended.outcome == "complete"
        return self.root / name

    def measure(self, run: Path) -> QualityReport:
        return measure_quality(self.stock, run, judge=self.judge)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("broken"))


def test_two_exact_systems_are_not_flagged(bench: Bench) -> None:
    verdict = verdict_of(
        bench.measure(bench.replay("mine", ServingConfig(name="mine", engine="swiftdiff", model="shapes")))
    )
    assert verdict.kind == "same"
    assert not verdict.is_flagged


def test_an_exact_system_that_serves_loras_at_half_their_scale_is_broken(bench: Bench) -> None:
    path = write_broken_system(bench.root / "broken")
    config = resolve_paths(load_config(path), path.parent)
    report = bench.measure(bench.replay("half", config))
    verdict = verdict_of(report)
    assert verdict.kind == "broken"
    assert verdict.text.startswith("NOT EXACT: 6 of 7 pictures differ")
    assert "style score −0." in verdict.text
    assert report.within_rounding == 1  # the picture without a LoRA
    shown = "".join(to_markdown(table) for table in quality_tables([report]))
    assert "⚠ NOT EXACT" in shown


def test_an_approximate_system_without_its_loras_is_caught_by_the_style_score_alone(bench: Bench) -> None:
    report = bench.measure(bench.replay("without", build=WithoutLoras))
    assert report.exactness == "approximate"
    verdict = verdict_of(report)
    assert verdict.kind == "differs"
    style = report.scores[-1]
    assert style.judged == 6
    assert style.change is not None
    assert style.change.high < -0.3
