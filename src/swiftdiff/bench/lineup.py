"""Decides which systems a view compares, what each may use, and in which settings it is measured."""

from __future__ import annotations

import os
from dataclasses import dataclass

from swiftdiff.bench.options import AnyView, BenchOptions
from swiftdiff.bench.settings import AdapterSetting
from swiftdiff.config import ServingConfig, SwiftdiffConfig
from swiftdiff.errors import ConfigError
from swiftdiff.validation import unknown_name

STOCK = "stock"
FULL = "swiftdiff"
ALL_OFF = "all-off"
# Both read LoRAs anew for every request: stock has no cache for them. `prefetch` is in no line of the
# ablation: it acts on requests that wait, and here there is one at a time.
_COLD = SwiftdiffConfig(lora_cache_mb=0)
_OFF = SwiftdiffConfig(
    lora_cache_mb=0,
    latent_parallelism=False,
    controlnet_offload=False,
    graph_replay=False,
    tuned_kernels=False,
    reuse_invariants=False,
    prefetch=False,
)
MAIN: dict[str, SwiftdiffConfig] = {
    FULL: _COLD,
    "swiftdiff+cache": SwiftdiffConfig(),
    "swiftdiff+bal40": _COLD.model_copy(update={"bal_k": "40%"}),
}
ABLATION: dict[str, SwiftdiffConfig] = {
    ALL_OFF: _OFF,
    "latent-only": _OFF.model_copy(update={"latent_parallelism": True}),
    "offload-only": _OFF.model_copy(update={"controlnet_offload": True}),
    "graphs-only": _OFF.model_copy(update={"graph_replay": True}),
    "kernels-only": _OFF.model_copy(update={"tuned_kernels": True}),
    "invariants-only": _OFF.model_copy(update={"reuse_invariants": True}),
}
SYSTEMS = (STOCK, *MAIN, *ABLATION)
MEANINGS = {
    STOCK: "stock diffusers with its best thread count",
    FULL: "every exact switch on, k = 0; LoRAs are read from the store for each request, as stock does",
    "swiftdiff+cache": "the same with LoRAs kept in memory between requests",
    "swiftdiff+bal40": "the same as swiftdiff, denoising up to 40 % of the steps before a LoRA must be there",
    ALL_OFF: "the engine with every switch off: LoRAs patched in place, else as stock computes",
    "latent-only": "all off, but guidance's halves on two lanes",
    "offload-only": "all off, but ControlNets beside the encoder half",
    "graphs-only": "all off, but captured graphs in place of Python",
    "kernels-only": "all off, but oneDNN's kernels with weights in their layout",
    "invariants-only": "all off, but what does not change over the steps is computed once",
}
ABLATED_SETTINGS = tuple(AdapterSetting(*numbers) for numbers in ((0, 0), (1, 1), (3, 2)))


def is_ablation(name: str) -> bool:
    """Tell whether a line of a table is there to show what one switch gains."""
    return name == ALL_OFF or name.endswith("-only")


@dataclass(frozen=True)
class Contender:
    """A system in a view.

    Attributes:
        name: How tables call it.
        config: What is built.
        cores: Numbers of the cores that its process is pinned to.
        settings: Those it is measured in, in order.
        num_gpus: GPUs that it computes on; 0 is the CPU.
    """

    name: str
    config: ServingConfig
    cores: tuple[int, ...]
    settings: tuple[AdapterSetting, ...]
    num_gpus: int = 0

    @property
    def num_devices(self) -> int:
        """What its seconds are multiplied with: GPUs, or cores where there is none."""
        return self.num_gpus or len(self.cores)


def usable_cores() -> tuple[int, ...]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def check_options(options: BenchOptions, cores: tuple[int, ...]) -> None:
    """Check what the options name.

    Raises:
        ConfigError: A system or setting is unknown, or the machine lacks what a view needs.
    """
    for name in options.systems or ():
        if name not in SYSTEMS:
            raise ConfigError(unknown_name("system", name, SYSTEMS))
    if not options.adapter_settings:
        raise ConfigError("--setting: name at least one, such as 1C/1L")
    if "one-core" in options.views and len(cores) < 2:
        raise ConfigError(
            "--view one-core gives swiftdiff two cores, but this process may use one; choose same-hardware"
        )
    if "one-core" in options.views and not hasattr(os, "sched_setaffinity"):
        raise ConfigError(
            "--view one-core pins processes to cores, which this system cannot; choose same-hardware"
        )


def line_up(
    model: str, view: AnyView, options: BenchOptions, cores: tuple[int, ...], stock_threads: int
) -> list[Contender]:
    """Return the systems of a view, stock first; each has at least one setting.

    Args:
        model: The model's name.
        view: The view.
        options: The benchmark's; named systems are measured in all settings.
        cores: Cores that may be used.
        stock_threads: Threads of stock in the view ``same-hardware``.
    """
    contenders = [stock_contender(model, view, options, cores, stock_threads)]
    for name, switches in (MAIN | ABLATION).items():
        settings = _settings_of(name, view, options)
        if settings:
            threads = 2 if view == "one-core" else None
            config = ServingConfig(
                name=name, engine="swiftdiff", model=model, threads=threads, swiftdiff=switches
            )
            contenders.append(Contender(name, config, cores[-2:] if view == "one-core" else cores, settings))
    return contenders


def stock_contender(
    model: str, view: AnyView, options: BenchOptions, cores: tuple[int, ...], threads: int
) -> Contender:
    """Return stock diffusers: on one core with one thread, or on all cores with ``threads``."""
    alone = view == "one-core"
    config = ServingConfig(name=STOCK, engine="diffusers", model=model, threads=1 if alone else threads)
    return Contender(STOCK, config, cores[-1:] if alone else cores, options.adapter_settings)


def _settings_of(name: str, view: AnyView, options: BenchOptions) -> tuple[AdapterSetting, ...]:
    settings = options.adapter_settings
    if options.systems is not None:
        return settings if name in options.systems else ()
    if name == FULL:
        return settings
    if view == "one-core":  # the paper's way of counting is for the whole system
        return ()
    if name in MAIN:  # these differ from `swiftdiff` in how LoRAs come
        return tuple(setting for setting in settings if setting.num_loras)
    if options.settings is None:
        settings = ABLATED_SETTINGS
    if name == "offload-only":
        settings = tuple(setting for setting in settings if setting.num_controlnets)
    return settings
