"""Owns how a world's settings are read and written: strict TOML, with single values changed by options."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import tomli_w
from pydantic import ValidationError

from swiftdiff.errors import ConfigError
from swiftdiff.validation import describe
from swiftdiff.world.config import WorldConfig

# A file may name them with any policy, as one with all defaults written out does.
_ONLY_WITH: Final[dict[str, tuple[str, ...]]] = {
    "cache.window_blocks": ("window", "window+sink"),
    "cache.sink_blocks": ("window+sink",),
}


def load_world_config(path: Path | None = None, changes: Mapping[str, Any] | None = None) -> WorldConfig:
    """Read how a world is run.

    Args:
        path: A TOML file with fields of `WorldConfig`; None is the defaults.
        changes: Values that replace the file's, by dotted names such as ``cache.window_blocks``; None leaves
            what is there.

    Raises:
        ConfigError: The file is missing or is not TOML, a key or value is wrong, or a change is of something
            that the cache's policy does not have.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read config {path}: {error.strerror or error}") from error
        except ValueError as error:  # no UTF-8, or no TOML
            raise ConfigError(f"{path}: not valid TOML: {error}") from error
    for name, value in (changes or {}).items():
        if value is not None:
            _put(values, name.split("."), value)
    where = "world config" if path is None else str(path)
    try:
        # As JSON, in which lists are tuples; what JSON does not have, such as dates, is refused as text.
        config = WorldConfig.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise ConfigError(f"{where}: {describe(error, WorldConfig)}") from error
    for name, policies in _ONLY_WITH.items():
        if (changes or {}).get(name) is not None and config.cache.policy not in policies:
            raise ConfigError(
                f"{name} is {(changes or {})[name]}, but means nothing with cache.policy "
                f"{config.cache.policy!r}: it is of {' and '.join(policies)}"
            )
    return config


def to_toml(config: WorldConfig) -> str:
    """Return the whole config, defaults written out; reading it gives an equal config."""
    return tomli_w.dumps(config.model_dump(exclude_none=True))


def _put(values: dict[str, Any], names: list[str], value: object) -> None:
    for name in names[:-1]:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            return  # the model says what is wrong with it
        values = inner
    values[names[-1]] = value
