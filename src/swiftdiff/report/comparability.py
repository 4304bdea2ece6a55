"""Decides whether runs can be compared: complete, and alike in all but their system."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.errors import StorageError
from swiftdiff.report.result import RunResult


@dataclass(frozen=True)
class RunSetting:
    """What decides whether a run can be compared.

    Attributes:
        label: How tables call its system.
        result: Of the run.
        config: Of the run, as TOML and not as `ServingConfig`: an earlier version's keys may be others.
        environment: Of the run; empty if it was not written down.
    """

    label: str
    result: RunResult
    config: dict[str, Any]
    environment: dict[str, Any]


def read_setting(label: str, folder: RunFolder, result: RunResult) -> RunSetting:
    """Return what decides whether a run can be compared.

    Raises:
        StorageError: ``config.toml`` is missing, or it or ``environment.json`` is damaged.
    """
    config, environment = (_read(folder.path / name) for name in ("config.toml", "environment.json"))
    if config is None:
        raise StorageError(f"{folder.path} is a damaged run: it has no config.toml")
    return RunSetting(label, result, config, environment or {})


def _read(path: Path) -> dict[str, Any] | None:
    """Return a TOML or JSON file's table; None if it is not there."""
    try:
        text = path.read_text(encoding="utf-8")
        value = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise StorageError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise StorageError(f"{path} is damaged: it holds no table of values")
    return value


def find_obstacles(runs: Sequence[RunSetting]) -> list[str]:
    """Return why the runs' numbers should not stand side by side; empty if they can."""
    obstacles = [
        f"{run.label} is incomplete: {run.result.remaining} of {run.result.info.num_requests} requests were "
        "not served"
        for run in runs
        if not run.result.complete
    ]
    unknown = dict.fromkeys(run.label for run in runs if not run.environment)
    obstacles += [f"the hardware of {label} is not known" for label in unknown]
    return obstacles + _differences(runs, _MUST_AGREE)


def find_caveats(runs: Sequence[RunSetting]) -> list[str]:
    """Return what else differs besides the system: allowed, but a reader must know."""
    return _differences(runs, _SHOULD_AGREE)


def _differences(
    runs: Sequence[RunSetting], aspects: dict[str, Callable[[RunSetting], str | None]]
) -> list[str]:
    differences = []
    for name, describe in aspects.items():
        labels: dict[str, list[str]] = {}
        for run in runs:
            value = describe(run)
            if value is not None:
                labels.setdefault(value, []).append(run.label)
        if len(labels) > 1:
            values = "; ".join(f"{value} ({', '.join(dict.fromkeys(who))})" for value, who in labels.items())
            differences.append(f"different {name}: {values}")
    return differences


def _hardware(run: RunSetting) -> str | None:
    if not run.environment:
        return None  # an obstacle of its own
    known = run.environment
    memory_bytes = known.get("memory_bytes")
    # Kernels differ by a few MiB in how much memory they report for the same machine.
    memory = f", {round(memory_bytes / 2**30)} GiB" if isinstance(memory_bytes, int | float) else ""
    gpus = ", ".join(map(str, known.get("gpus") or ()))
    cores = f"{known.get('usable_cores')} of {known.get('cores')} cores"
    return f"{known.get('cpu')}, {cores}{memory}" + (f", {gpus}" if gpus else "")


def _software(run: RunSetting) -> str | None:
    packages = run.environment.get("packages")
    if not isinstance(packages, dict):
        return None
    commit = str(run.environment.get("git_commit") or "")
    changes = "+" if commit.endswith("+") else ""
    own = f"swiftdiff {run.environment.get('swiftdiff')}" + (f" at {commit[:9]}{changes}" if commit else "")
    versions = (f"{name} {packages.get(name)}" for name in ("torch", "diffusers", "transformers", "peft"))
    return ", ".join((own, *versions))


def _store(run: RunSetting) -> str:
    emulated = run.result.info.emulated_store
    adapters = run.config.get("adapters")
    url = adapters.get("url") if isinstance(adapters, dict) else None
    return (url or "the model's own") + (f", emulated {emulated}" if emulated else "")


def _mapping(run: RunSetting) -> str:
    mapped = run.result.info.mapped_adapters
    return "none" if mapped is None else f"{mapped.how}, SHA-256 {mapped.sha256[:12]}"


def _slo(run: RunSetting) -> str:
    slo_ms = run.result.info.options.slo_ms
    return "the trace's" if slo_ms is None else f"{slo_ms:g} ms"


_MUST_AGREE: dict[str, Callable[[RunSetting], str | None]] = {
    "traces": lambda run: f"SHA-256 {run.result.info.trace_sha256[:12]}",
    "models": lambda run: run.result.info.model,
    "loads": lambda run: run.result.info.options.load.describe(),
    "numbers of requests": lambda run: str(run.result.info.num_requests),
    "numbers of warm-ups": lambda run: str(run.result.info.options.num_warmups),
    "SLOs": _slo,
    "adapter stores": _store,
    "mappings of adapter ids": _mapping,
    "kinds of device": lambda run: run.result.info.device.partition(":")[0],
    "hardware": _hardware,
}
_SHOULD_AGREE: dict[str, Callable[[RunSetting], str | None]] = {
    "schedulers": lambda run: run.config.get("scheduler"),
    "number types": lambda run: run.config.get("dtype"),
    "software": _software,
}
