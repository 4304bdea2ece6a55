from __future__ import annotations

from pathlib import Path

import pytest

from swiftdiff.config import AdapterStoreConfig, StoreEmulationConfig, load_config, parse_config
from swiftdiff.errors import ConfigError
from swiftdiff.resources import workloads_root

MINIMAL = 'name = "a"\nengine = "diffusers"\n'
ENGINE = MINIMAL + "[swiftdiff]\n"
NIRVANA = MINIMAL + "[nirvana]\n"
EMULATE = MINIMAL + "[adapters.emulate]\n"


@pytest.mark.parametrize(
    "path", sorted((workloads_root() / "configs").rglob("*.toml")), ids=lambda path: path.name
)
def test_every_shipped_config_loads_and_survives_being_written(path: Path) -> None:
    config = load_config(path)
    assert parse_config(config.to_toml()) == config
    assert config.name == path.stem


def test_a_written_config_spells_its_defaults_out() -> None:
    text = parse_config(MINIMAL).to_toml()
    assert 'model = "shapes"' in text
    assert "max_cached_controlnets = 8" in text


def test_lists_are_read_as_tuples_at_any_depth() -> None:
    lists = 'lanes = ["cpu:0", "cpu:1"]\nguidance_interval = [0, 5.5]\n[nirvana]\nskips = [[0.9, 0.25]]'
    config = parse_config(ENGINE + lists)
    assert config.swiftdiff.lanes == ("cpu:0", "cpu:1")
    assert config.swiftdiff.guidance_interval == (0.0, 5.5)
    assert config.nirvana.skips == ((0.9, 0.25),)
    assert parse_config(config.to_toml()) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "field name is missing"),
        (MINIMAL + "thread = 2", "unknown field 'thread'; did you mean 'threads'? known: adapters, device"),
        (
            MINIMAL + "[adapters]\nlatency_ms = 2",
            "unknown field 'latency_ms'; known: emulate, url in adapters",
        ),
        (
            MINIMAL + "[adapters]\nemulate = {latency = 2}",
            "unknown field 'latency'; did you mean 'latency_ms'? "
            "known: bandwidth_mb_s, controlnet_latency_file, jitter, latency_file, latency_ms, "
            "latency_scale, lora_latency_file, seed in adapters.emulate",
        ),
        (
            MINIMAL + 'dtype = "float8"',
            "dtype is 'float8', but must be one of 'float32', 'float16' or 'bfloat16'",
        ),
        (MINIMAL + "threads = 0", "threads is 0, but must be at least 1"),
        (MINIMAL + 'threads = "2"', "threads is '2', but must be an integer"),
        (MINIMAL + "threads = true", "threads is True, but must be an integer"),
        (EMULATE + "latency_ms = nan", "adapters.emulate.latency_ms is nan, but must be"),
        (EMULATE + "latency_ms = -1", "adapters.emulate.latency_ms is -1, but must be at least 0"),
        (EMULATE + 'latency_ms = "40"', "adapters.emulate.latency_ms is '40', but must be a number"),
        (EMULATE + "bandwidth_mb_s = 0", "adapters.emulate.bandwidth_mb_s is 0, but must be at least 0.001"),
        (EMULATE + "latency_ms = 1\njitter = -0.1", "emulate.jitter is -0.1, but must be at least 0"),
        (EMULATE + "latency_ms = 1\njitter = inf", "emulate.jitter is inf, but must be a finite number"),
        (EMULATE + "latency_ms = 1\njitter = 11", "emulate.jitter is 11, but must be at most 10"),
        (EMULATE + "jitter = 0.5", "must be latency_ms or bandwidth_mb_s too, which jitter can vary"),
        (ENGINE + "controlnet_reuse = 0", "swiftdiff.controlnet_reuse is 0, but must be at least 1"),
        (ENGINE + "step_cache = 1.5", "swiftdiff.step_cache is 1.5, but must be an integer"),
        (ENGINE + "guidance_interval = [5, 1]", "must be two noise levels, the lower one first"),
        (ENGINE + "guidance_interval = [1, 1]", "must be two noise levels, the lower one first"),
        (ENGINE + "guidance_interval = [-1, 5]", "guidance_interval[0] is -1, but must be at least 0"),
        (ENGINE + "guidance_interval = [1]", "field swiftdiff.guidance_interval[1] is missing"),
        (ENGINE + "guidance_interval = [0, inf]", "guidance_interval[1] is inf, but must be a finite number"),
        (ENGINE + "guidance_interval = 5", "swiftdiff.guidance_interval is 5, but must be a list"),
        (NIRVANA + "cache_mb = -1", "nirvana.cache_mb is -1, but must be at least 0"),
        (NIRVANA + 'eviction = "lfu"', "nirvana.eviction is 'lfu', but must be one of 'lcbfu' or 'lru'"),
        (NIRVANA + "skips = []", "nirvana.skips is (), but must be"),
        (NIRVANA + "skips = [[0.9, 1.0]]", "nirvana.skips[0][1] is 1.0, but must be less than 1"),
        (NIRVANA + "skips = [[1.5, 0.1]]", "nirvana.skips[0][0] is 1.5, but must be at most 1"),
        (
            NIRVANA + "skips = [[0.9, 0.1], [0.8, 0.2]]",
            "must be pairs of which similarity and share both rise",
        ),
        (
            NIRVANA + "skips = [[0.8, 0.2], [0.9, 0.1]]",
            "must be pairs of which similarity and share both rise",
        ),
        (EMULATE + 'latency_file = ""', "latency_file is '', but must be a string that is not empty"),
        (EMULATE + 'latency_file = "a.csv"\nlatency_ms = 1', "must be either a latency_file or latency_ms"),
        (
            EMULATE + 'latency_file = "a.csv"\nlora_latency_file = "b.csv"',
            "either a latency_file or one for each",
        ),
        (EMULATE + 'lora_latency_file = "b.csv"', "lora_latency_file and controlnet_latency_file together"),
        (EMULATE + "latency_ms = 5\nlatency_scale = 0.5", "must be a latency_file too"),
        (
            EMULATE + 'latency_file = "a.csv"\nlatency_scale = 0',
            "latency_scale is 0, but must be greater than 0",
        ),
        (EMULATE + "seed = 0.5", "adapters.emulate.seed is 0.5, but must be an integer"),
        (MINIMAL + "[adapters]\nemulate = 40", "adapters.emulate is 40, but must be an object"),
        (MINIMAL + "diffusers = 3", "diffusers is 3, but must be an object with named fields"),
        ("name = ", "not valid TOML"),
        (MINIMAL + MINIMAL, "not valid TOML"),
    ],
)
def test_a_wrong_config_is_refused_with_file_key_and_what_would_be_right(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "system.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_an_emulated_store_survives_being_written() -> None:
    config = parse_config(
        MINIMAL + "[adapters]\nemulate = {latency_ms = 40, bandwidth_mb_s = 200, jitter = 1}"
    )
    assert config.adapters.emulate == StoreEmulationConfig(latency_ms=40, bandwidth_mb_s=200, jitter=1)
    assert parse_config(config.to_toml()) == config
    measured = parse_config(EMULATE + 'latency_file = "loads.csv"\nseed = 3')
    assert parse_config(measured.to_toml()) == measured


def test_relative_folders_and_files_of_a_store_count_from_the_given_folder(tmp_path: Path) -> None:
    emulate = StoreEmulationConfig(latency_file="loads.csv", seed=3)
    moved = AdapterStoreConfig(url="../adapters", emulate=emulate).relative_to(tmp_path / "configs")
    assert moved.url == str(tmp_path / "adapters")
    assert moved.emulate == StoreEmulationConfig(latency_file=str(tmp_path / "configs/loads.csv"), seed=3)
    by_kind = StoreEmulationConfig(lora_latency_file="l.csv", controlnet_latency_file="/c.csv")
    moved = AdapterStoreConfig(emulate=by_kind).relative_to(tmp_path)
    assert moved.emulate.lora_latency_file == str(tmp_path / "l.csv")
    assert moved.emulate.controlnet_latency_file == "/c.csv"
    for url in ("s3://bucket/adapters", "zip://::a.zip", None):
        assert AdapterStoreConfig(url=url).relative_to(tmp_path) == AdapterStoreConfig(url=url)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", "folder"])
def test_a_config_that_cannot_be_read_is_refused(content: bytes | str | None, tmp_path: Path) -> None:
    path = tmp_path / "system.toml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    with pytest.raises(ConfigError, match=r"cannot read config .*system\.toml: \S"):
        load_config(path)


def test_what_decodes_or_multiplies_less_precisely_is_not_exact() -> None:
    assert parse_config(ENGINE + "channels_last = true\ncompile_blocks = true").swiftdiff.computes_exactly
    for line in ('vae_dtype = "float16"', "vae_tile_side = 512", 'quantized_weights = "float8"'):
        assert not parse_config(ENGINE + line).swiftdiff.computes_exactly
    with pytest.raises(ConfigError, match="vae_tile_side"):
        parse_config(ENGINE + "vae_tile_side = 100")
    with pytest.raises(ConfigError, match="compile_blocks = true too"):
        parse_config(ENGINE + 'quantized_weights = "int8"')
