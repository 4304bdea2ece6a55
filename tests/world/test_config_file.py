from __future__ import annotations

from pathlib import Path

import pytest

from swiftdiff.errors import ConfigError
from swiftdiff.world.config import CacheConfig, SamplerConfig, WorldConfig
from swiftdiff.world.config_file import load_world_config, to_toml


def test_what_is_written_reads_back_equal(tmp_path: Path) -> None:
    config = WorldConfig(
        cache=CacheConfig(policy="window+sink", window_blocks=3),
        sampler=SamplerConfig(sigmas=(1.0, 0.5)),
        guidance_scale=2.0,
    )
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    assert load_world_config(path) == config


def test_options_go_before_the_file_and_none_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('model = "here"\n[cache]\nwindow_blocks = 3\nsink_blocks = 2\n', encoding="utf-8")
    config = load_world_config(path, {"model": None, "cache.window_blocks": 5, "threads": 1})
    assert (config.model, config.threads) == ("here", 1)
    assert (config.cache.window_blocks, config.cache.sink_blocks) == (5, 2)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[cache]\nwindow_blocks = 0", "cache.window_blocks is 0, but must be at least 1"),
        ("[cache]\nwindw_blocks = 2", "did you mean 'window_blocks'"),
        ('[cache]\npolicy = "all"', "cache.policy is 'all', but must be one of"),
        ("cache = 3", "cache is 3"),
        ("guidance_scale = nan", "guidance_scale"),
        ("guidance_scale = 2026-11-23", "guidance_scale is '2026-11-23'"),
        ("memory_budget_mb = -1", "memory_budget_mb is -1"),
        ("[sampler]\nsigmas = [0.5, 0.75]", "each below the one before"),
        ("[cache", "not valid TOML"),
    ],
)
def test_a_mistake_is_one_clear_error(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "world.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"world\.toml") as raised:
        load_world_config(path, {"cache.sink_blocks": None})
    assert complaint in str(raised.value)


def test_a_window_smaller_than_a_block_is_refused_from_options_too() -> None:
    with pytest.raises(ConfigError, match=r"cache\.window_blocks is 0, but must be at least 1"):
        load_world_config(changes={"cache.window_blocks": 0})


@pytest.mark.parametrize(("name", "policy"), [("sink_blocks", "window"), ("window_blocks", "full")])
def test_an_option_that_the_policy_does_not_have_is_refused_but_may_stand_in_a_file(
    tmp_path: Path, name: str, policy: str
) -> None:
    path = tmp_path / "world.toml"
    path.write_text(f'[cache]\npolicy = "{policy}"\n{name} = 2\n', encoding="utf-8")
    assert load_world_config(path).cache.policy == policy
    with pytest.raises(
        ConfigError, match=rf"cache\.{name} is 3, but means nothing with cache\.policy '{policy}'"
    ):
        load_world_config(path, {f"cache.{name}": 3})


def test_a_file_that_is_not_there_or_no_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read config"):
        load_world_config(tmp_path / "nowhere.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_world_config(tmp_path / "bytes.toml")


def test_an_option_inside_of_what_is_no_table_does_not_hide_the_mistake(tmp_path: Path) -> None:
    path = tmp_path / "world.toml"
    path.write_text("cache = 3", encoding="utf-8")
    with pytest.raises(ConfigError, match="cache is 3"):
        load_world_config(path, {"cache.window_blocks": 2})
