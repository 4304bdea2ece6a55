"""Orders systems into an ablation, from their configs: the baseline, then switches on one after another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swiftdiff.config import SwiftdiffConfig
from swiftdiff.quality.statistics import Estimate, bootstrap_mean
from swiftdiff.report.comparison import ComparedRun, Comparison, pair, ratio_of_means
from swiftdiff.report.tables import AUTO, Column, Table

ENGINE = "swiftdiff"
OFF = "all switches off"


@dataclass(frozen=True)
class Step:
    """A system with more switched on than the one before it.

    Attributes:
        run: The system.
        label: What was switched on; the name of the baseline.
        latency_s: Mean latency with its 95 % interval.
        gain: How many times as fast as the step before it, paired; None of the baseline.
    """

    run: ComparedRun
    label: str
    latency_s: Estimate
    gain: Estimate | None


def waterfall(comparison: Comparison) -> list[Step]:
    """Return the longest way from the baseline to a system with more and more switches on; else nothing.

    A system follows another if it has all that the other has switched on, and more. Of ways that are equally
    long, the one that comes first in the comparison is taken.
    """
    runs = [run for run in comparison.runs[1:] if run.result.info.engine == ENGINE and len(run.served)]
    switched = {run.label: switches_on(run.config) for run in runs}
    ways: dict[str, list[ComparedRun]] = {}
    for run in sorted(runs, key=lambda each: len(switched[each.label])):
        before = [way for way in ways.values() if switched[way[-1].label] < switched[run.label]]
        ways[run.label] = [*max(before, key=len, default=[]), run]
    if not ways or not len(comparison.baseline.served):
        return []
    chain = [comparison.baseline, *max(ways.values(), key=len)]
    steps = [Step(chain[0], chain[0].label, _mean_latency(chain[0]), None)]
    for before_run, run in itertools.pairwise(chain):
        earlier = switched.get(before_run.label)
        paired = pair(before_run.system, run.system)
        gain = ratio_of_means(paired["latency_s_before"], paired["latency_s_after"])
        steps.append(Step(run, _label(earlier, switched[run.label], run), _mean_latency(run), gain))
    return steps


def switches_on(config: dict[str, Any]) -> frozenset[str]:
    """Return what a config of the engine switches on or changes, such as ``bal_k 40%``.

    Args:
        config: As TOML; what it leaves out has the default.
    """
    defaults = SwiftdiffConfig().model_dump(mode="json")
    values = defaults | config.get(ENGINE, {})
    off = {name: False if isinstance(value, bool) else value for name, value in defaults.items()}
    return frozenset(
        name if value is True else f"{name} {value}"
        for name, value in values.items()
        if value != off.get(name)
    )


def waterfall_table(steps: Sequence[Step]) -> Table:
    """Return the ablation: a row a step; empty of fewer than two steps after the baseline."""
    columns = (
        Column("switched on, one after another"),
        Column("latency, ms", AUTO),
        Column("× step before", AUTO),
        Column("95 % interval", AUTO),
        Column("× baseline", AUTO),
    )
    rows = tuple(
        (
            step.label,
            step.latency_s.value * 1000,
            None if step.gain is None else step.gain.value,
            None if step.gain is None else f"{step.gain.low:.2f}–{step.gain.high:.2f}",
            step.run.latency_speedup.mean,
        )
        for step in steps
    )
    note = "Mean latency, over the requests that a step and the one before it both served."
    title = "From the baseline to all switches on"
    return Table("waterfall", title, columns, rows if len(rows) > 2 else (), note)


def _label(earlier: frozenset[str] | None, now: frozenset[str], run: ComparedRun) -> str:
    if earlier is None:
        return f"{run.label}: {OFF}" if not now else f"{run.label}: the engine, {len(now)} switches on"
    return f"{run.label}: + {', '.join(sorted(now - earlier))}"


def _mean_latency(run: ComparedRun) -> Estimate:
    latency_s = run.served["latency_s"]
    return bootstrap_mean(latency_s.tolist(), groups=[request_id for request_id, _ in latency_s.index])
