"""Decides which systems are compared on GPUs, in which groups they share them, and in which settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from swiftdiff.bench.gpu_approximate import ENDS, ApproximateLine, approximate_lines, has_torchao
from swiftdiff.bench.gpu_options import GpuBenchOptions
from swiftdiff.bench.lineup import ABLATED_SETTINGS, ALL_OFF, FULL, STOCK, Contender
from swiftdiff.bench.settings import AdapterSetting
from swiftdiff.config import AdapterStoreConfig, DiffusersConfig, ServingConfig, SwiftdiffConfig
from swiftdiff.errors import ConfigError
from swiftdiff.validation import unknown_name

STOCK_CHANNELS_LAST = "stock+nhwc"
COMPILED = "swiftdiff+compile"
# The engine's exact switches, each measured alone. `prefetch` acts on requests that wait, and here there is
# one at a time; `compile_blocks` takes minutes and is a line of its own, on top of the others.
SWITCHES = {
    "latent_parallelism": "latent",
    "controlnet_offload": "offload",
    "graph_replay": "graphs",
    "tuned_kernels": "kernels",
    "reuse_invariants": "invariants",
    "channels_last": "nhwc",
}
UNMEASURED_SWITCHES = ("prefetch", "compile_blocks")
# Estimated for full-size SDXL in half precision with three ControlNets and two LoRAs: weights, a decode in
# float32 and what steps need are 22 GB for stock; swiftdiff has 8 more, for pristine weights and graphs.
MEMORY_FOR_TWO = 60e9
MOST_GPUS = 5  # two halves of guidance and three ControlNets: more have nothing to do


@dataclass(frozen=True)
class Line:
    """A system of the line-up.

    Attributes:
        contender: The system.
        meaning: What it is.
        is_there: Whether the software for it is.
    """

    contender: Contender
    meaning: str
    is_there: bool = True


def gpu_line_up(
    options: GpuBenchOptions, num_gpus: int, cores: tuple[int, ...], adapter_url: str | None = None
) -> list[Line]:
    """Return the systems, the most telling first: stock and swiftdiff, then what the rest consists of.

    Args:
        options: The benchmark's; named systems are measured in all settings.
        num_gpus: GPUs that may be used; 0 is a dry run.
        cores: Cores of each process.
        adapter_url: Where adapters come from; None is the model's own.

    Raises:
        ConfigError: A named system is not in the line-up, or no setting is named.
    """
    if not options.adapter_settings:
        raise ConfigError("--setting: name at least one, such as 1C/1L")
    lines = {line.contender.name: line for line in all_gpu_lines(options, num_gpus, cores, adapter_url)}
    if options.systems is None:
        return [line for line in lines.values() if line.contender.settings and line.is_there]
    for name in options.systems:
        if name not in lines:
            raise ConfigError(unknown_name("system", name, tuple(lines)))
        if not lines[name].is_there:
            raise ConfigError(f"--systems {name} needs torchao: pip install 'swiftdiff[quantized]'")
    chosen = [lines[STOCK], *(lines[name] for name in dict.fromkeys(options.systems) if name != STOCK)]
    everywhere = options.adapter_settings
    return [replace(line, contender=replace(line.contender, settings=everywhere)) for line in chosen]


def groups_of(lines: list[Line], memory_bytes: float | None = None) -> list[tuple[Contender, ...]]:
    """Return which systems are in memory at one time and take turns: the first two, then each alone.

    Args:
        lines: The systems.
        memory_bytes: Of the smallest GPU; on one that cannot hold two systems each has it alone. None is
            enough.
    """
    contenders = [line.contender for line in lines]
    if memory_bytes is not None and memory_bytes < MEMORY_FOR_TWO:
        return [(each,) for each in contenders]
    together = tuple(each for each in contenders if each.name in (STOCK, FULL))
    return [together, *((each,) for each in contenders if each not in together)]


def all_gpu_lines(
    options: GpuBenchOptions, num_gpus: int, cores: tuple[int, ...], adapter_url: str | None = None
) -> list[Line]:
    """Return every line there is for some GPUs, also those with no setting that is measured."""
    settings = options.adapter_settings
    ablated = _within(ABLATED_SETTINGS, options)
    with_controlnets = tuple(setting for setting in ablated if setting.num_controlnets)

    def line(
        name: str, meaning: str, where: tuple[AdapterSetting, ...], gpus: int = 1, **values: Any
    ) -> Line:
        config = ServingConfig(
            name=name,
            engine="diffusers" if "diffusers" in values else "swiftdiff",
            model=options.model,
            device=options.device,
            dtype=options.dtype,
            adapters=AdapterStoreConfig(url=adapter_url),
            **values,
        )
        return Line(Contender(name, config, cores, where, 0 if options.dry_run else gpus), meaning)

    # All read LoRAs anew for every request: stock has no cache for them.
    full = SwiftdiffConfig(lora_cache_mb=0, channels_last=True)
    off = full.model_copy(update=dict.fromkeys((*SWITCHES, *UNMEASURED_SWITCHES), False))
    lines = [
        line(STOCK, "stock diffusers on one GPU", settings, diffusers=DiffusersConfig()),
        line(
            FULL,
            "every exact switch on, k = 0, on one GPU; LoRAs are read from the store for each request, as "
            "stock does",
            settings,
            swiftdiff=full,
        ),
    ]
    if num_gpus > 1:
        used = min(num_gpus, MOST_GPUS)
        lanes = tuple(f"cuda:{index}" for index in range(used))
        lines.append(
            line(
                f"{FULL}-{used}gpus",
                f"the same on {used} GPUs, a lane each",
                settings,
                used,
                swiftdiff=full.model_copy(update={"lanes": lanes}),
            )
        )

    def approximation(each: ApproximateLine) -> Line:
        where = _within(each.settings, options) if each.is_alike is not False else ()
        made = line(each.name, each.meaning, where, swiftdiff=each.applied_to(full))
        return replace(made, is_there=has_torchao() or not each.needs_torchao)

    approximate = approximate_lines(on_gpu=not options.dry_run)
    lines += [approximation(each) for each in approximate if not each.compiles]
    lines.append(
        line(
            ALL_OFF,
            "the engine with every switch off: LoRAs patched in place, else as stock computes",
            ablated,
            swiftdiff=off,
        )
    )
    for switch, short in SWITCHES.items():
        alone: dict[str, Any] = {switch: True}
        where = with_controlnets if switch == "controlnet_offload" else ablated
        if switch == "latent_parallelism" and not options.dry_run:
            alone["lanes"] = ("cuda:0", "cuda:0")  # on one GPU two streams must be asked for
        only = off.model_copy(update=alone)
        lines.append(line(f"{short}-only", f"all off, but {switch}", where, swiftdiff=only))
    lines.append(
        line(
            STOCK_CHANNELS_LAST,
            "stock diffusers with channels-last networks, which its documentation recommends",
            ablated,
            diffusers=DiffusersConfig(channels_last=True),
        )
    )
    if not options.dry_run:  # last, for how long it compiles is not known beforehand
        lines.append(
            line(
                COMPILED,
                "swiftdiff with compile_blocks: torch.compile of the transformers' blocks",
                _within(ENDS, options),
                swiftdiff=full.model_copy(update={"compile_blocks": True}),
            )
        )
        lines += [approximation(each) for each in approximate if each.compiles]
    return lines


def _within(wanted: tuple[AdapterSetting, ...], options: GpuBenchOptions) -> tuple[AdapterSetting, ...]:
    """Return the settings of a line that shows a part: those of them that are measured at all."""
    return tuple(setting for setting in wanted if setting in options.adapter_settings)
