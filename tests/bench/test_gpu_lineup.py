from __future__ import annotations

import pytest
from gpu_bench_fakes import small_gpu_options

from swiftdiff.bench import gpu_lineup
from swiftdiff.bench.gpu_lineup import SWITCHES, UNMEASURED_SWITCHES, gpu_line_up
from swiftdiff.bench.gpu_options import GpuBenchOptions
from swiftdiff.config import ServingConfig, SwiftdiffConfig, parse_config
from swiftdiff.errors import ConfigError


def _configs(options: GpuBenchOptions, num_gpus: int = 1) -> dict[str, ServingConfig]:
    return {line.contender.name: line.contender.config for line in gpu_line_up(options, num_gpus, (0, 1))}


@pytest.fixture(params=[False, True], ids=["without torchao", "with torchao"])
def torchao(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether it seems to be installed."""
    monkeypatch.setattr(gpu_lineup, "has_torchao", lambda: request.param)
    return bool(request.param)


def test_every_switch_of_the_engine_is_measured_alone_or_knowingly_not() -> None:
    fields = SwiftdiffConfig.model_fields.items()
    assert {name for name, field in fields if field.annotation is bool} == {*SWITCHES, *UNMEASURED_SWITCHES}
    configs = _configs(GpuBenchOptions())
    off = configs["all-off"].swiftdiff
    assert not any(getattr(off, name) for name in SWITCHES)
    for switch, short in SWITCHES.items():
        alone = configs[f"{short}-only"].swiftdiff
        assert [name for name in SWITCHES if getattr(alone, name)] == [switch]
        assert getattr(configs["swiftdiff"].swiftdiff, switch)


def test_stock_and_swiftdiff_are_measured_in_the_papers_settings_and_parts_in_some() -> None:
    lines = {line.contender.name: line.contender for line in gpu_line_up(GpuBenchOptions(), 1, (0,))}
    assert list(lines)[:2] == ["stock", "swiftdiff"]
    assert len(lines["stock"].settings) == len(lines["swiftdiff"].settings) == 7
    assert [each.name for each in lines["reuse-5"].settings] == ["0C/0L", "3C/2L"]
    assert not {"all-bold", "bal40"} & set(lines)  # their pictures stray
    assert [each.name for each in lines["graphs-only"].settings] == ["0C/0L", "1C/1L", "3C/2L"]
    assert [each.name for each in lines["offload-only"].settings] == ["1C/1L", "3C/2L"]
    assert {each.num_gpus for each in lines.values()} == {1}
    assert {each.config.device for each in lines.values()} == {"cuda:0"}
    assert {each.config.dtype for each in lines.values()} == {"float16"}


def test_several_gpus_are_one_more_system_with_a_lane_on_each() -> None:
    lines = {line.contender.name: line.contender for line in gpu_line_up(GpuBenchOptions(), 8, (0,))}
    together = lines["swiftdiff-5gpus"]
    assert together.config.swiftdiff.lanes == tuple(f"cuda:{index}" for index in range(5))
    assert (together.num_gpus, together.num_devices) == (5, 5)
    assert "swiftdiff-2gpus" in _configs(GpuBenchOptions(), 2)


def test_on_one_gpu_the_halves_of_guidance_have_two_streams_of_it() -> None:
    assert _configs(GpuBenchOptions())["latent-only"].swiftdiff.lanes == ("cuda:0", "cuda:0")


def test_a_dry_run_has_the_same_systems_on_the_cpu_but_those_that_need_a_gpu(torchao: bool) -> None:
    dry, wet = _configs(GpuBenchOptions.dry(), 0), _configs(GpuBenchOptions())
    quantized = {"float8", "int8"} if torchao else set()
    assert set(wet) - set(dry) == {"swiftdiff+compile"} | quantized
    assert {config.device for config in dry.values()} == {"cpu"}
    assert {config.model for config in dry.values()} == {"sdxl-thin"}
    assert all(config.swiftdiff.lanes is None for config in dry.values())
    # What is made is a config that a file could hold too.
    for config in (*dry.values(), *wet.values()):
        assert parse_config(config.to_toml()) == config


def test_what_compiles_comes_last_for_nobody_knows_how_long_it_takes(
    torchao: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = _configs(GpuBenchOptions())
    compiling = [name for name, config in configs.items() if config.swiftdiff.compile_blocks]
    assert compiling == ["swiftdiff+compile", *(["int8"] if torchao else [])]
    assert list(configs)[-len(compiling) :] == compiling


def test_a_system_that_needs_torchao_says_so_when_it_is_named(torchao: bool) -> None:
    if torchao:
        assert list(_configs(small_gpu_options(systems=("float8",)))) == ["stock", "float8"]
        return
    with pytest.raises(ConfigError, match=r"float8 needs torchao: pip install 'swiftdiff\[quantized\]'"):
        gpu_line_up(small_gpu_options(systems=("float8",)), 1, (0,))


def test_measurements_made_with_torchao_are_reported_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_lineup, "has_torchao", lambda: False)
    assert "float8" in {line.contender.name for line in gpu_lineup.all_gpu_lines(GpuBenchOptions(), 1, ())}


def test_borrowed_adapters_are_every_systems() -> None:
    lines = gpu_line_up(GpuBenchOptions(), 1, (0,), "/somewhere")
    assert {line.contender.config.adapters.url for line in lines} == {"/somewhere"}


def test_named_systems_are_measured_everywhere_beside_stock_and_others_are_unknown() -> None:
    lines = gpu_line_up(small_gpu_options(systems=("offload-only",)), 1, (0,))
    assert [(line.contender.name, len(line.contender.settings)) for line in lines] == [
        ("stock", 2),
        ("offload-only", 2),
    ]
    with pytest.raises(ConfigError, match="did you mean 'all-off'"):
        gpu_line_up(small_gpu_options(systems=("alloff",)), 1, (0,))
    with pytest.raises(ConfigError, match="at least one"):
        gpu_line_up(small_gpu_options(settings=()), 1, (0,))
