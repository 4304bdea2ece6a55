from __future__ import annotations

from pathlib import Path

import pytest
from run_folders import make_run, served

from swiftdiff.config import ServingConfig, SwiftdiffConfig
from swiftdiff.report.comparison import compare_runs
from swiftdiff.report.waterfall import switches_on, waterfall, waterfall_table

OFF = SwiftdiffConfig(
    latent_parallelism=False,
    controlnet_offload=False,
    graph_replay=False,
    tuned_kernels=False,
    reuse_invariants=False,
    prefetch=False,
)


def run(root: Path, name: str, seconds: float, **switches: object) -> Path:
    config = ServingConfig(
        name=name, engine="swiftdiff", model="none", swiftdiff=OFF.model_copy(update=switches)
    )
    return make_run(root / name, [served("a", seconds), served("b", seconds)], config=config)


@pytest.fixture
def stock(tmp_path: Path) -> Path:
    config = ServingConfig(name="stock", engine="diffusers", model="none")
    return make_run(tmp_path / "stock", [served("a", 8.0), served("b", 8.0)], config=config)


def test_steps_are_found_and_ordered_from_the_configs_whatever_their_order(
    tmp_path: Path, stock: Path
) -> None:
    bal = run(tmp_path, "bal", 0.5, graph_replay=True, prefetch=True, bal_k="40%")
    both = run(tmp_path, "both", 1.0, graph_replay=True, prefetch=True)
    graphs = run(tmp_path, "graphs", 2.0, graph_replay=True)
    off = run(tmp_path, "off", 4.0)
    aside = run(tmp_path, "aside", 3.0, latent_parallelism=True)
    steps = waterfall(compare_runs([bal, both, aside, graphs, off, stock]))
    assert [step.label for step in steps] == [
        "stock",
        "off: all switches off",
        "graphs: + graph_replay",
        "both: + prefetch",
        "bal: + bal_k 40%",
    ]
    assert [step.latency_s.value for step in steps] == pytest.approx([8, 4, 2, 1, 0.5])
    assert [step.gain and step.gain.value for step in steps] == [None, *[pytest.approx(2.0)] * 4]
    assert waterfall_table(steps).rows[-1] == ("bal: + bal_k 40%", 500.0, 2.0, "2.00–2.00", 16.0)


def test_without_a_second_step_there_is_nothing_to_show(tmp_path: Path, stock: Path) -> None:
    other = make_run(tmp_path / "other", [served("a", 1.0)], num_requests=2)
    assert waterfall(compare_runs([stock, other], force=True)) == []
    one = waterfall(compare_runs([stock, run(tmp_path, "one", 1.0, prefetch=True)]))
    assert waterfall_table(one).rows == ()


def test_what_a_config_leaves_out_has_its_default() -> None:
    assert "graph_replay" in switches_on({})
    assert switches_on({"swiftdiff": OFF.model_dump(mode="json")}) == frozenset()
    assert switches_on({"swiftdiff": OFF.model_dump(mode="json") | {"step_cache": 3}}) == {"step_cache 3"}
