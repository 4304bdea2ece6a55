"""The command ``swiftdiff world drift``: how far clips stray from their beginning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swiftdiff.errors import ConfigError

from .options import PrintJson
from .status_line import StatusLine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swiftdiff.world.config import CachePolicy
    from swiftdiff.world.drift.error import Drift, Metric
    from swiftdiff.world.drift.run import DriftSummary
    from swiftdiff.world.loading import WorldModel

EXIT_INTERRUPTED = 130
_RANDOM = "RANDOM WEIGHTS: the model was never trained; its drift says nothing."


def drift(
    clips: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[CLIP…]", help="GIFs, folders of frames or .npy. Default: clips are made by a model."
        ),
    ] = None,
    *,
    truth: Annotated[
        Path | None, typer.Option(metavar="CLIP", help="What given clips should have shown: the floor.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="As in world generate. Default: bounce.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Of all clips. Default: a scene a seed.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(metavar="P", help="full, window, window+sink; may be repeated. Default: all."),
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Past blocks in the window. Default: 6.")
    ] = None,
    blocks: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Length of each clip. Default: 40.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Clips of each policy. Default: 5.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="The first one. Default: 0.")] = None,
    metrics: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.py", help="Learned metrics: METRICS in it, functions of a chunk's frames, by name."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where the model runs. Default: cpu.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of the CPU. Default: 1.")] = None,
    as_json: PrintJson = False,
) -> None:
    """Measure LV-Bench's video drift error, the ground truth's own score beside.

    A clip is cut into 10 chunks; each is compared with the first by metrics that
    need no weights (proxies), by physics where the world is bounce, and by your
    own with --metrics FILE.py. Means come with 95 % bootstrap intervals.

    Exit codes: 0 done; 2 a mistake in the command or its files; 130 Ctrl-C.
    """
    from swiftdiff.world.drift.plug import load_metrics
    from swiftdiff.world.loading import load_world
    from swiftdiff.world.presets import PRESETS, default_world

    plugged = {} if metrics is None else load_metrics(metrics)
    try:
        if clips:
            of_new = (model, prompt, policy, window, blocks, seeds, seed, device, threads)
            if any(option is not None for option in of_new):
                raise ConfigError("given clips are only measured: --truth, --metrics and --json are for them")
            note, summaries = "", _measure_given(clips, truth, plugged)
        else:
            if truth is not None:
                raise ConfigError("--truth is beside given clips; a model's own is known or not")
            policies = _parse_policies(policy)
            options: dict[str, Any] = {
                "num_blocks": blocks or 40,
                "num_seeds": seeds or 5,
                "seed": seed or 0,
                "window_blocks": window or 6,
                "threads": threads or 1,
                "prompt": prompt,
            }
            world = load_world(model or default_world(), device or "cpu")
            summaries = _measure_new(world, policies, plugged, options)
            note = _RANDOM * (world.name in PRESETS)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if as_json:
        print(json.dumps([summary.to_json() for summary in summaries], indent=2, ensure_ascii=False))
        return
    _print(summaries, note)


def _parse_policies(given: list[str] | None) -> tuple[CachePolicy, ...]:
    from swiftdiff.world.bench.options import WorldBenchOptions

    known = WorldBenchOptions().drift_policies
    if given is None:
        return known
    for name in given:
        if name not in known:
            raise ConfigError.for_field("--policy", name, ", ".join(known))
    return tuple(policy for policy in known if policy in given)


def _measure_given(
    clips: list[Path], truth: Path | None, plugged: Mapping[str, Metric]
) -> list[DriftSummary]:
    from swiftdiff.world.drift.clips import read_clips
    from swiftdiff.world.drift.error import measure_clip
    from swiftdiff.world.drift.proxies import PROXIES
    from swiftdiff.world.drift.run import TRUTH, summarise_drift

    metrics = {**PROXIES, **plugged}
    measured = [measure_clip(clip, metrics) for clip in read_clips([*clips, *([truth] if truth else [])])]
    way = clips[0].stem if len(clips) == 1 else f"{len(clips)} clips"
    floor = [] if truth is None else summarise_drift(TRUTH, measured[-1:])
    return floor + summarise_drift(way, measured[: len(clips)])


def _measure_new(
    world: WorldModel,
    policies: tuple[CachePolicy, ...],
    plugged: Mapping[str, Metric],
    options: dict[str, Any],
) -> list[DriftSummary]:
    from swiftdiff.world.drift.metrics import metrics_for
    from swiftdiff.world.drift.run import measure_policies, summarise_drift

    status = StatusLine()
    found: dict[str, list[Mapping[str, Drift]]] = {}
    metrics = {**metrics_for(world), **plugged}
    try:
        for way, number, drifts in measure_policies(world, policies, metrics, **options):
            status.draw(f"seed {number}: {way}")
            found.setdefault(way, []).append(drifts)
    finally:
        status.clear()
    return [summary for way, clips in found.items() for summary in summarise_drift(way, clips)]


def _print(summaries: list[DriftSummary], note: str) -> None:
    from rich.console import Console

    from swiftdiff.world.bench.report import drift_table
    from swiftdiff.world.drift.run import TRUTH

    from .terminal import print_table

    console = Console(highlight=False)
    if note:
        console.print(note, markup=False, style="bold red")
    print_table(console, drift_table(summaries))
    if all(summary.way != TRUTH for summary in summaries):
        console.print("No ground truth is known, so there is no floor to compare with.", markup=False)
