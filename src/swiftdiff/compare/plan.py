"""Owns what a comparison measures: the file ``compare.json``, by which it is resumed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from swiftdiff.config import ServingConfig, load_config
from swiftdiff.engine.options import ReplayOptions
from swiftdiff.engine.session import resolve_paths
from swiftdiff.errors import ConfigError
from swiftdiff.resources import path as resource
from swiftdiff.resources import workloads_root
from swiftdiff.trace import scan_trace

Order = Literal["interleaved", "abba"]
BASELINE_ENGINE = "diffusers"


class SweepOptions(BaseModel):
    """How the highest request rate is searched.

    Attributes:
        attainment: Share of the requests that must keep their SLO.
        precision: The search ends when the lowest rate that failed is at most so much above the highest
            that held, as a share of it.
        max_probes: Runs for each system.
        seed: Of the arrivals: the same gaps, scaled, at every rate and for every system.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attainment: Annotated[float, Field(gt=0, le=1)] = 0.9
    precision: Annotated[float, Field(gt=0)] = 0.05
    max_probes: Annotated[int, Field(ge=2)] = 12
    seed: Annotated[int, Field(ge=0)] = 0


class ComparePlan(BaseModel):
    """What is measured.

    Attributes:
        trace: Absolute path.
        trace_sha256: Of its bytes.
        systems: In the order of the first turn; names differ.
        options: How each run replays the trace.
        repeats: Runs of each system.
        order: How systems take turns, see `turns`.
        baseline: Name of the system to measure against.
        ablation: Names of systems that are only steps towards another: ``--fail-below`` is not about them.
        sweep: Search the highest rate instead; None compares.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    trace: str
    trace_sha256: str
    systems: Annotated[tuple[ServingConfig, ...], Field(min_length=1)]
    options: ReplayOptions
    repeats: Annotated[int, Field(ge=1)] = 3
    order: Order = "interleaved"
    baseline: str
    ablation: tuple[str, ...] = ()
    sweep: SweepOptions | None = None

    def turns(self, repeat: int) -> list[ServingConfig]:
        """Return the systems in their order within a repeat, counted from 1.

        ``interleaved`` is A B C, A B C: a slow drift of the machine meets all alike. ``abba`` is A B C,
        C B A, A B C: over two repeats a steady drift cancels out.
        """
        backwards = self.order == "abba" and repeat % 2 == 0
        return list(self.systems[::-1] if backwards else self.systems)

    def describe_order(self) -> str:
        """Return a sentence for tables."""
        if self.repeats == 1:
            return "One run a system, one after another."
        turns = {"interleaved": "A B C, A B C, …", "abba": "A B C, C B A, …"}[self.order]
        return f"{self.repeats} repeats, systems in turn ({turns}), each run in a process of its own."


def find_configs(paths: Sequence[Path]) -> list[ServingConfig]:
    """Read system configs; a folder is all in it, and ``configs``, where it is not there, the shipped ones.

    Raises:
        ConfigError: A path is neither, or a config is wrong.
    """
    files = [file for path in paths for file in _config_files(path)]
    return [resolve_paths(load_config(file), file.resolve().parent) for file in files]


def is_config(path: Path) -> bool:
    """Return whether a path stands for configs and not for runs."""
    found = _shipped(path)
    if found.is_dir():
        return not (found / "run.json").is_file() and any(found.glob("*.toml"))
    return found.suffix == ".toml"


def make_plan(
    trace: Path,
    systems: Sequence[ServingConfig],
    options: ReplayOptions,
    *,
    baseline: str,
    repeats: int = 3,
    order: Order = "interleaved",
    ablation: tuple[str, ...] = (),
    sweep: SweepOptions | None = None,
    force: bool = False,
) -> ComparePlan:
    """Return a plan whose systems and trace were checked; see `ComparePlan`.

    Raises:
        SwiftdiffError: The trace is wrong, or the systems cannot be compared and ``force`` is false.
    """
    check_systems(systems, force=force)
    scanned = scan_trace(trace)
    return ComparePlan(
        trace=str(scanned.path.resolve()),
        trace_sha256=scanned.sha256,
        systems=tuple(systems),
        options=options,
        repeats=repeats,
        order=order,
        baseline=baseline,
        ablation=ablation,
        sweep=sweep,
    )


def check_systems(systems: Sequence[ServingConfig], *, force: bool) -> None:
    """Check before hours are spent that systems can be compared.

    Raises:
        ConfigError: There are fewer than two, two have one name, or they serve different things.
    """
    if len(systems) < 2:
        raise ConfigError(
            "name at least two systems: swiftdiff compare CONFIG CONFIG, or a folder of configs"
        )
    slugs = [slug(system.name) for system in systems]
    for index, name in enumerate(slugs):
        if name in slugs[:index]:
            raise ConfigError(
                f"two systems are called {systems[index].name!r} and {systems[slugs.index(name)].name!r}; "
                "give them names that differ"
            )
    if force:
        return
    aspects = {
        "models": [system.model for system in systems],
        "kinds of device": [system.device.partition(":")[0] for system in systems],
        "adapter stores": [system.adapters.model_dump_json() for system in systems],
    }
    for aspect, values in aspects.items():
        if len(set(values)) > 1:
            who = "; ".join(f"{system.name}: {value}" for system, value in zip(systems, values, strict=True))
            raise ConfigError(
                f"these systems should not be compared: different {aspect} ({who}). --force compares them "
                "nevertheless"
            )


def choose_baseline(systems: Sequence[ServingConfig], wanted: str | None) -> str:
    """Return the name of the system to measure against: as wanted, or stock diffusers, or the first.

    Raises:
        ConfigError: No system has that name.
    """
    names = [system.name for system in systems]
    if wanted is None:
        stock = [system.name for system in systems if system.engine == BASELINE_ENGINE]
        return (stock or names)[0]
    if wanted not in names:
        raise ConfigError.for_field("--baseline", wanted, "one of " + ", ".join(names))
    return wanted


def slug(name: str) -> str:
    """Return a system's name as a folder's."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip("._") or "system"


def _config_files(path: Path) -> list[Path]:
    found = _shipped(path)
    if not found.is_dir():
        return [found]
    files = sorted(found.glob("*.toml"), key=lambda file: file.stem)
    if not files:
        raise ConfigError(f"{path} holds neither configs (*.toml) nor a run")
    return files


def _shipped(path: Path) -> Path:
    """Return the shipped file that a path such as ``configs`` means where the user has none of that name."""
    if path.exists() or not path.parts or path.parts[0] != "configs":
        return path
    known = workloads_root().joinpath(*path.parts)
    return resource(path.as_posix()) if known.exists() else path
