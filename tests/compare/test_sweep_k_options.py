from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from swiftdiff.compare.sweep_k_options import (
    SweepOptions,
    parse_ks,
    parse_load_time,
    parse_margin,
    spread_ks,
)
from swiftdiff.compare.sweep_k_requests import choose_loras, plan_requests
from swiftdiff.config import AdapterStoreConfig, ServingConfig, StoreEmulationConfig, SwiftdiffConfig
from swiftdiff.errors import ConfigError, StorageError, TraceError
from swiftdiff.request import ImageRequest, LoraUse
from swiftdiff.trace import scan_trace
from swiftdiff.trace.writer import write_trace

CONFIG = ServingConfig(name="a", engine="swiftdiff")


def make_options(**fields: object) -> SweepOptions:
    values = {"config": CONFIG, "loras": ("neon",), "ks": (0, 2), "prompts": 3, "seed": 4}
    return SweepOptions.model_validate(values | fields)


def test_a_list_of_k_always_has_0_and_may_have_ranges() -> None:
    assert parse_ks("4, 2", 20) == (0, 2, 4)
    assert parse_ks("0-3,9,2", 20) == (0, 1, 2, 3, 9)


@pytest.mark.parametrize("text", ["", "a", "-1", "1.5", "20", "3-20", "4-2", "0", "1,,2", "9" * 30])
def test_a_wrong_list_of_k_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--k is "):
        parse_ks(text, 20)


def test_points_go_from_0_to_the_last_step_and_lie_nearer_at_the_start() -> None:
    ks = spread_ks(8, 20)
    assert (ks[0], ks[-1], len(ks)) == (0, 19, 8)
    gaps = [after - before for before, after in itertools.pairwise(ks)]
    assert gaps == sorted(gaps)
    assert spread_ks(50, 4) == (0, 1, 2, 3)


def test_a_margin_is_a_number_or_one_a_measure() -> None:
    assert make_options(margin=parse_margin("0.1")).margin_of(True) == {"style": 0.1, "attributes": 0.1}
    assert make_options(margin=parse_margin("0.1")).margin_of(False) == {"ssim": 0.1}
    assert make_options(margin=parse_margin("style=0.2,ssim=0.3")).margin_of(True) == {
        "style": 0.2,
        "ssim": 0.3,
    }


@pytest.mark.parametrize("text", ["", "x", "-0.1", "nan", "1.1", "style=x", "colour=0.1", "style=0.1,"])
def test_a_wrong_margin_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--margin"):
        parse_margin(text)


def test_a_load_time_is_measured_or_in_milliseconds() -> None:
    assert parse_load_time("measured") is None
    assert make_options(load_time_ms=parse_load_time("250")).emulation.latency_ms == 250
    for text in ("fast", "-1", "nan", "inf", "1e9"):
        with pytest.raises(ConfigError, match="--load-time"):
            parse_load_time(text)


def test_measured_means_the_configs_own_store_and_its_emulation() -> None:
    emulate = StoreEmulationConfig(latency_ms=70)
    config = CONFIG.model_copy(update={"adapters": AdapterStoreConfig(emulate=emulate)})
    assert make_options(config=config).emulation == emulate


def test_the_swept_system_keeps_no_lora_and_has_no_k_of_its_own() -> None:
    switches = SwiftdiffConfig(bal_k="auto", bal_table="t.toml", prefetch=False, lanes=("cpu:0",))
    config = CONFIG.model_copy(update={"swiftdiff": switches})
    swept = make_options(config=config).serving.swiftdiff
    assert (swept.bal_k, swept.bal_table, swept.lora_cache_mb, swept.prefetch) == (0, None, 0, True)
    assert swept.lanes == ("cpu:0",)


@pytest.mark.parametrize("ks", [(1, 2), (0,), (0, 2, 2), (0, 3, 2), (0, 20)])
def test_ks_rise_from_0_and_are_steps(ks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ks"):
        make_options(ks=ks)


def test_made_up_requests_are_the_same_for_a_seed_and_differ_in_scene_and_noise() -> None:
    requests = plan_requests(make_options())
    assert requests == plan_requests(make_options())
    assert len({request.prompt for request in requests}) == 3
    assert len({request.seed for request in requests}) == 3
    assert plan_requests(make_options(seed=5)) != requests
    assert all(request.num_inference_steps == 20 and not request.loras for request in requests)


def test_a_traces_requests_keep_prompt_and_seed_and_lose_loras_and_further_pictures(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    fields = {"timestamp": 0.0, "prompt": "x", "num_images": 3, "loras": (LoraUse(id="gold"),)}
    asked = [
        ImageRequest(request_id="wrong", width=3, **fields),
        *(ImageRequest(request_id=f"r{seed}", seed=seed, **fields) for seed in range(9)),
    ]
    write_trace(path, asked)
    sha256 = scan_trace(path).sha256
    options = make_options(trace=str(path), trace_sha256=sha256, num_inference_steps=7)
    requests = plan_requests(options)
    assert [(r.request_id, r.seed, r.num_images, r.loras) for r in requests] == [
        (f"r{seed}", seed, 1, ()) for seed in range(3)
    ]
    assert {request.num_inference_steps for request in requests} == {7}
    write_trace(path, asked[1:])
    with pytest.raises(StorageError, match="not the trace any more"):
        plan_requests(options)


def test_a_trace_without_a_servable_request_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_trace(path, [ImageRequest(request_id="wrong", timestamp=0, prompt="", width=3)])
    with pytest.raises(ConfigError, match="no request that could be served"):
        plan_requests(make_options(trace=str(path), trace_sha256=scan_trace(path).sha256))
    path.write_text("{")
    with pytest.raises(TraceError):
        plan_requests(make_options(trace=str(path), trace_sha256="0"))


def test_loras_are_those_of_the_store_each_once() -> None:
    known = choose_loras(None, CONFIG)
    assert len(known) == 8
    assert choose_loras([" neon", "gold", "neon"], CONFIG) == ("neon", "gold")
    with pytest.raises(ConfigError, match="unknown LoRA 'noen'; did you mean 'neon'"):
        choose_loras(["noen"], CONFIG)
    with pytest.raises(ConfigError, match="name LoRAs"):
        choose_loras([""], CONFIG)
