"""A world's benchmark measures everything once, goes on after Ctrl-C, and refuses another model's folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from swiftdiff.engine.measuring import MeasuringObserver
from swiftdiff.errors import ConfigError, ModelError, StorageError
from swiftdiff.world.bench.folder import BenchRow, WorldBenchFolder
from swiftdiff.world.bench.options import WorldBenchOptions
from swiftdiff.world.bench.parts import WorldBench, plan_rounds
from swiftdiff.world.bench.rollout import Roller
from swiftdiff.world.bench.session import resume_bench, start_bench
from swiftdiff.world.config import CacheConfig
from swiftdiff.world.loading import WorldModel

SCENE = "red ball at 8,20 moving 1.2,-0.7"


@pytest.fixture(autouse=True)
def _own_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def options(tiny_world_folder: Path) -> WorldBenchOptions:
    return WorldBenchOptions(
        model=str(tiny_world_folder),
        repeats=2,
        clip_blocks=(2,),
        window_blocks=1,
        long_blocks=3,
        drift_blocks=10,
        drift_seeds=1,
        drift_policies=("window",),
    )


class StopAfter(MeasuringObserver):
    """Presses Ctrl-C before a measurement."""

    def __init__(self, case: str) -> None:
        self.case = case

    def doing(self, what: str) -> None:
        if what == self.case:
            raise KeyboardInterrupt


def test_a_benchmark_measures_each_case_and_goes_on_after_ctrl_c_without_breaking_a_pair(
    options: WorldBenchOptions, tmp_path: Path
) -> None:
    out = tmp_path / "bench"
    ended = start_bench(options, out, argv=["bench"], observer=StopAfter("speed: recompute 2"))
    assert ended.outcome == "interrupted"
    before = {row.key: row.started_at for row in WorldBenchFolder.open(out).read_rows()}
    assert ("speed", "cache 2", 0) in before
    ended = resume_bench(out)
    assert ended.outcome == "complete"
    rows = {row.key: row for row in ended.folder.read_rows()}
    planned = plan_rounds(options, has_truth=True)
    assert rows.keys() == {(each.part, case, each.repeat) for each in planned for case in each.cases}
    # the pair that was cut in two is measured anew, what was whole is not
    assert rows["speed", "cache 2", 0].started_at != before["speed", "cache 2", 0]
    assert rows["parity", "cache", 0].started_at == before["parity", "cache", 0]
    environment = json.loads((out / "environment.json").read_text())
    assert len(environment["sessions"]) == 2
    assert resume_bench(out).outcome == "complete"  # nothing is left to do
    assert len(rows["window", "window", 0].series["block_s"]) == 3
    assert rows["window", "window", 0].numbers["bytes_after"] > 0
    # equal but for rounding: a thousand million times less of it
    assert rows["parity", "float64", 1].numbers["max_error"] < 1e-12
    assert rows["first-pixels", "stream", 0].numbers["first_pixels_s"] > 0
    assert rows["overhead", "profiled", 0].numbers["fps"] > 0
    assert "fps" not in rows["overhead", "plain", 0].numbers


def test_a_disk_that_takes_no_more_stops_the_benchmark_and_keeps_what_is_there(
    options: WorldBenchOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = WorldBenchFolder.append

    def fill_up(folder: WorldBenchFolder, row: BenchRow) -> None:
        if row.part == "speed":
            raise StorageError("cannot append: no space left")
        append(folder, row)

    monkeypatch.setattr(WorldBenchFolder, "append", fill_up)
    ended = start_bench(options, tmp_path / "bench", argv=[])
    assert (ended.outcome, str(ended.reason)) == ("stopped", "cannot append: no space left")
    assert [row.part for row in ended.folder.read_rows()] == ["parity", "int8"]


def test_another_models_folder_is_not_gone_on_with(options: WorldBenchOptions, tmp_path: Path) -> None:
    out = tmp_path / "bench"
    start_bench(options, out, argv=[], observer=StopAfter("parity: cache"))
    values = json.loads((out / "environment.json").read_text())
    values["model"]["weights_sha256"] = "another"
    (out / "environment.json").write_text(json.dumps(values))
    with pytest.raises(StorageError, match="other weights"):
        resume_bench(out)


def test_nothing_is_written_where_the_model_or_prompt_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        start_bench(WorldBenchOptions(model="bunce"), tmp_path / "bench", argv=[])
    assert not (tmp_path / "bench").exists()


def test_all_ways_of_the_past_agree_and_int8_is_near(tiny_world: Callable[[int], WorldModel]) -> None:
    roller = Roller(tiny_world(0), SCENE, seed=0)
    whole = CacheConfig(policy="full", max_blocks=4)
    exact = roller.compare(4, roller.cached(whole), roller.recomputed())
    assert max(exact.errors) < 1e-5 < exact.scale
    packed = roller.compare(
        4, roller.cached(whole), roller.cached(whole.model_copy(update={"dtype": "int8"}))
    )
    assert 0 < packed.rms_error < max(packed.errors)
    assert packed.errors[0] == pytest.approx(0, abs=0.01 * packed.scale)
    assert 0 < max(packed.errors) < 0.1 * packed.scale
    cached, recomputed = roller.roll(3, roller.cached(whole)), roller.roll(3, roller.recomputed())
    assert all(
        torch.allclose(*pair, atol=1e-4) for pair in zip(cached.latents, recomputed.latents, strict=True)
    )
    assert len(cached.block_s) == 3
    assert not torch.equal(
        cached.latents[0], Roller(tiny_world(0), SCENE, seed=1).roll(1, roller.recomputed()).latents[0]
    )


def test_a_prompt_is_needed_where_a_model_has_no_scenes(tiny_world: Callable[[int], WorldModel]) -> None:
    from dataclasses import replace

    model = tiny_world(0)
    other = replace(model, settings=model.settings.model_copy(update={"prompt_encoder": "embeddings"}))
    with pytest.raises(ConfigError, match="name a --prompt"):
        WorldBench(other, WorldBenchOptions())
    assert not WorldBench(other, WorldBenchOptions(prompt=SCENE, drift_blocks=2)).has_truth
