from __future__ import annotations

from pathlib import Path

import pytest

from swiftdiff.config import load_config, parse_config
from swiftdiff.errors import ConfigError
from swiftdiff.resources import workloads_root

MINIMAL = 'name = "a"\nengine = "diffusers"\n'


@pytest.mark.parametrize(
    "path", sorted((workloads_root() / "configs").glob("*.toml")), ids=lambda path: path.name
)
def test_every_shipped_config_loads_and_survives_being_written(path: Path) -> None:
    config = load_config(path)
    assert parse_config(config.to_toml()) == config
    assert config.name == path.stem


def test_a_written_config_spells_its_defaults_out() -> None:
    text = parse_config(MINIMAL).to_toml()
    assert 'model = "shapes"' in text
    assert "max_cached_controlnets = 8" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "field name is missing"),
        (MINIMAL + "thread = 2", "unknown field 'thread'; did you mean 'threads'? known: adapters, device"),
        (
            MINIMAL + "[adapters]\nlatency = 2",
            "unknown field 'latency'; did you mean 'latency_ms'? "
            "known: bandwidth_mb_s, latency_ms, url in adapters",
        ),
        (
            MINIMAL + 'dtype = "float8"',
            "dtype is 'float8', but must be one of 'float32', 'float16' or 'bfloat16'",
        ),
        (MINIMAL + "threads = 0", "threads is 0, but must be at least 1"),
        (MINIMAL + 'threads = "2"', "threads is '2', but must be an integer"),
        (MINIMAL + "threads = true", "threads is True, but must be an integer"),
        (MINIMAL + "[adapters]\nlatency_ms = nan", "adapters.latency_ms is nan, but must be"),
        (
            MINIMAL + "[adapters]\nbandwidth_mb_s = 0",
            "adapters.bandwidth_mb_s is 0, but must be greater than 0",
        ),
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


@pytest.mark.parametrize("content", [None, b"\xff\xfe", "folder"])
def test_a_config_that_cannot_be_read_is_refused(content: bytes | str | None, tmp_path: Path) -> None:
    path = tmp_path / "system.toml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    with pytest.raises(ConfigError, match=r"cannot read config .*system\.toml: \S"):
        load_config(path)
