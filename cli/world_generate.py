"""The command ``swiftdiff world generate``: a prompt and actions in; frames, a GIF and figures out."""

from __future__ import annotations

import json
import re
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from swiftdiff.errors import ConfigError

from .fresh_folder import fresh_folder
from .status_line import StatusLine

if TYPE_CHECKING:
    from swiftdiff.report.tables import Table
    from swiftdiff.world.clip_making import ClipEnded
    from swiftdiff.world.config import WorldConfig
    from swiftdiff.world.session import Block

EXIT_MISTAKE, EXIT_INTERRUPTED = 2, 130
DEFAULT_BLOCKS = 14


def generate(  # noqa: PLR0917 - a command's options
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="What the clip begins with; nothing with --resume."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|DIR", help="The world: bounce, or a folder in diffusers format."),
    ] = None,
    blocks: Annotated[
        int | None,
        typer.Option(metavar="N", help=f"How long the clip is, in blocks. Default: {DEFAULT_BLOCKS}."),
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Of the noise. Default: 0.")] = None,
    steer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BLOCK:TEXT",
            help='Another prompt or action from a block on, such as 5:"push left"; FIRST-LAST:TEXT for '
            "some blocks. Actions without LAST are for one block. May be repeated.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The clip's folder. Default: results/<time>-world-<model>."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML of how the world is run; options here go before it."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="P", help="Of the cache: full, window or window+sink.")
    ] = None,
    window: Annotated[int | None, typer.Option(metavar="N", help="Past blocks that a block sees.")] = None,
    sink: Annotated[
        int | None, typer.Option(metavar="N", help="First blocks that are never forgotten, with window+sink.")
    ] = None,
    cache_dtype: Annotated[
        str | None, typer.Option(metavar="T", help="Of the cache: native or int8.")
    ] = None,
    cache_storage: Annotated[
        str | None, typer.Option(metavar="S", help="Where the cache is: device or host.")
    ] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(metavar="X", help="Of classifier-free guidance; 1 is without.")
    ] = None,
    on_prompt_change: Annotated[
        str | None,
        typer.Option(metavar="HOW", help="What a lasting new prompt does: keep, reset-cross or recache."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Of the CPU. Default: 1 for a small model.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="D", help="cpu, cuda or cuda:N. Default: cpu.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Go on with a clip that ended early, as if it had not."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print summary.json on stdout and nothing else.")
    ] = False,
) -> None:
    """Make a clip block by block, and steer it on its way.

    Its folder gets PNG frames as they are made, then a GIF, an MP4 where ffmpeg
    is on the path, a timeline for Perfetto, and what each part took.

    Exit codes: 0 done; 2 a mistake in the command, or a disk that takes no more;
    130 Ctrl-C, after showing what finished. After both, --resume goes on.
    """
    running = {
        "model": model,
        "cache.policy": policy,
        "cache.window_blocks": window,
        "cache.sink_blocks": sink,
        "cache.dtype": cache_dtype,
        "cache.storage": cache_storage,
        "guidance_scale": guidance_scale,
        "on_prompt_change": on_prompt_change,
        "threads": threads,
    }
    try:
        if resume is not None:
            asked = (prompt, blocks, seed, steer, out, config, device, *running.values())
            if any(option is not None for option in asked):
                raise ConfigError("--resume goes on as the clip began: besides it there can only be --json")
            ended = _resume(resume)
        else:
            from swiftdiff.world.config_file import load_world_config

            settings = load_world_config(config, running)
            request = {
                "prompt": prompt,
                "num_blocks": DEFAULT_BLOCKS if blocks is None else blocks,
                "seed": seed or 0,
            }
            folder = out if out is not None else _default_folder(settings.model)
            ended = _start(settings, device or "cpu", request, steer or [], folder)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    for warning in ended.warnings:
        typer.secho(f"warning: {warning}", fg="yellow", err=True)
    if ended.reason is not None:
        typer.secho(f"error: stopped early: {ended.reason}", fg="red", err=True)
    if as_json:
        print(json.dumps(ended.summary, indent=2, ensure_ascii=False))
    else:
        _print_result(ended)
    raise typer.Exit({"complete": 0, "stopped": EXIT_MISTAKE, "interrupted": EXIT_INTERRUPTED}[ended.outcome])


def _start(
    settings: WorldConfig, device: str, request: dict[str, Any], steers: list[str], out: Path
) -> ClipEnded:
    from swiftdiff.world.clip import generate as generate_clip
    from swiftdiff.world.clip_folder import ClipFolder
    from swiftdiff.world.clip_request import parse_request, parse_steer
    from swiftdiff.world.loading import load_world
    from swiftdiff.world.proposals import propose

    ClipFolder(out).check_free()  # before the model is loaded, which takes longer
    world = load_world(settings.model, device)
    if request["prompt"] is None:
        raise ConfigError(f'name a PROMPT for block 0, such as "{propose(world).example}"')
    is_action = world.settings.resting_prompt is not None
    parsed = tuple(parse_steer(text, is_action=is_action) for text in steers)
    wanted = parse_request(**request, steers=parsed)
    with _Progress(wanted.num_blocks) as progress:
        return generate_clip(world, settings, wanted, out, argv=sys.argv, on_block=progress.made)


def _resume(folder: Path) -> ClipEnded:
    from swiftdiff.world.clip import resume
    from swiftdiff.world.clip_folder import ClipFolder

    num_blocks = ClipFolder.open(folder).read_info().request.num_blocks
    with _Progress(num_blocks) as progress:
        return resume(folder, on_block=progress.made, on_restored=progress.restored)


class _Progress:
    """The line that says how far a clip is."""

    def __init__(self, num_blocks: int) -> None:
        self._num_blocks = num_blocks
        self._status = StatusLine()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._status.clear()

    def made(self, block: Block) -> None:
        """Show a block that is on disk."""
        self._status.draw(f"block {block.index + 1} of {self._num_blocks}: {block.prompt}")

    def restored(self, done: int, total: int) -> None:
        """Show how much of what was there is in the cache again."""
        self._status.draw(f"going back through block {done} of {total}")


def _default_folder(model: str) -> Path:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(model).name).strip("._") or "world"
    return fresh_folder(f"{datetime.now():%Y%m%d-%H%M%S}-world-{safe}")


def _print_result(ended: ClipEnded) -> None:
    from rich.console import Console

    from .terminal import print_table

    console = Console(highlight=False)
    summary, folder = ended.summary, ended.folder
    if summary["num_blocks"]:
        print_table(console, _table(summary))
    places = {
        "gif": folder.gif_path,
        "mp4": folder.mp4_path,
        "frames": folder.frames_path,
        "timeline": folder.timeline_path,
        "records": folder.records_path,
    }
    for name, place in places.items():
        if place.exists():
            console.print(f"{name + ':':10}{place}", markup=False, soft_wrap=True)
    if ended.outcome != "complete":
        console.print(
            f"\nINCOMPLETE: {summary['num_blocks']} of {summary['asked_blocks']} blocks are on disk. "
            "Go on with\n"
            f"  swiftdiff world generate --resume {shlex.quote(str(folder.path))}",
            markup=False,
            soft_wrap=True,
        )


def _table(summary: dict[str, Any]) -> Table:
    from swiftdiff.report.tables import Column, Table

    width, height = summary["size"]
    return Table(
        name="clip",
        title=f"{summary['num_blocks']} blocks, {summary['num_frames']} frames of {width}x{height}",
        columns=(Column("milliseconds"), Column("", ".1f")),
        rows=(
            ("submit to first pixels", summary["first_pixels_s"] * 1e3),
            ("a denoising step, median", summary["median_step_s"] * 1e3),
            ("the commit pass, median", summary["median_commit_s"] * 1e3),
            ("decoding a block, median", summary["median_decode_s"] * 1e3),
        ),
        note=(
            f"{summary['fps']:.1f} frames/s with decoding, {summary['fps_without_decode']:.1f} without; "
            f"shown at {summary['clip_fps']:g}.\n"
            f"KV cache {summary['cache_bytes'] / 1e6:.2f} MB; profiling took "
            f"{summary['overhead_share']:.2%} of the time."
        ),
    )
