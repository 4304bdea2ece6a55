"""Makes the systems of an ablation: the engine with every switch off, then one more on after another."""

from __future__ import annotations

from collections.abc import Sequence

from swiftdiff.config import ServingConfig, SwiftdiffConfig
from swiftdiff.errors import ConfigError

ENGINE = "swiftdiff"
# In this order each can show what it gains: lanes cannot before graphs keep Python off the CPU's lanes.
SWITCHES = {
    "reuse_invariants": "+invariants",
    "tuned_kernels": "+kernels",
    "graph_replay": "+graphs",
    "latent_parallelism": "+latent",
    "controlnet_offload": "+offload",
    "prefetch": "+prefetch",
}
OFF = "all-off"


def ablation_steps(systems: Sequence[ServingConfig]) -> list[ServingConfig]:
    """Return the systems between stock and the first exact ``swiftdiff`` among those that are compared.

    All of its switches are off in the first; each further one has one more of them on. The system itself is
    the last step and not among them.

    Raises:
        ConfigError: No system has that engine, or none of its switches is on.
    """
    engines = [system for system in systems if system.engine == ENGINE]
    exact = [system for system in engines if _without_switches(system) == SwiftdiffConfig()]
    if not engines:
        raise ConfigError(f"--ablation takes the engine {ENGINE} apart, but no system has it")
    last = (exact or engines)[0]
    names = [name for name in SWITCHES if getattr(last.swiftdiff, name)]
    if not names:
        raise ConfigError(f"--ablation: {last.name} has no switch on that could be taken off")
    off = last.swiftdiff.model_copy(update=dict.fromkeys(names, False))
    steps = [last.model_copy(update={"name": OFF, "swiftdiff": off})]
    for count in range(1, len(names)):
        switches = off.model_copy(update=dict.fromkeys(names[:count], True))
        steps.append(last.model_copy(update={"name": SWITCHES[names[count - 1]], "swiftdiff": switches}))
    return steps


def _without_switches(system: ServingConfig) -> SwiftdiffConfig:
    """Return what besides switches a config changes: approximations, lanes, budgets."""
    return system.swiftdiff.model_copy(update=dict.fromkeys(SWITCHES, True))
