"""Owns the making of a clip into a folder: a new one, or one that ended early."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from swiftdiff.errors import ConfigError
from swiftdiff.telemetry.environment import describe_environment
from swiftdiff.telemetry.timeline import Timeline
from swiftdiff.world.clip_folder import BlockRecord, ClipFolder, ClipInfo
from swiftdiff.world.clip_making import ClipEnded, Making
from swiftdiff.world.clip_request import ClipRequest
from swiftdiff.world.config import WorldConfig
from swiftdiff.world.config_file import to_toml
from swiftdiff.world.engine import WorldEngine
from swiftdiff.world.loading import EMBEDDED, WorldModel, load_world
from swiftdiff.world.presets import PRESETS
from swiftdiff.world.session import Block


def generate(
    model: WorldModel,
    config: WorldConfig,
    request: ClipRequest,
    out: Path,
    *,
    argv: list[str],
    on_block: Callable[[Block], None] | None = None,
) -> ClipEnded:
    """Make a clip into a new folder. Whatever ends it, what finished stays, and is shown.

    Args:
        model: The world.
        config: How it is run.
        request: What the clip is made from.
        out: The folder: not there yet, or empty.
        argv: The command line, for ``environment.json``.
        on_block: Is told of each block that is on disk.

    Raises:
        SwiftdiffError: The folder is taken, a prompt or action means nothing to the model, the clip is longer
            than its cache lets it be, or the memory budget fits no session. Later mistakes are in
            `ClipEnded`.
    """
    ClipFolder(out).check_free()
    _check_length(config, request)
    info = ClipInfo(
        request=request,
        model=model.name,
        device=str(model.causal.device),
        frames_per_block=model.settings.frames_per_block,
        fps=model.settings.fps,
        started_at=datetime.now().astimezone().isoformat(timespec="seconds"),
    )

    def create() -> Making:
        environment = json.dumps(describe_environment(argv), indent=2, ensure_ascii=False) + "\n"
        folder = ClipFolder.create(out, to_toml(_findable(config)), info, environment)
        return Making(folder, info, [], on_block=on_block)

    return _make(model, config, request, create, spent_s=0.0)


def resume(
    path: Path,
    *,
    load: Callable[[str, str], WorldModel] = load_world,
    on_block: Callable[[Block], None] | None = None,
    on_restored: Callable[[int, int], None] | None = None,
) -> ClipEnded:
    """Go on with a clip that ended early; the pictures are those that it would have had in one go.

    What a block leaves in the cache depends on all blocks before it. So every finished block is decoded and
    committed again in its turn, from its latents on disk and with its prompt; only denoising is left out. The
    last one is made anew from its noise, which shows whether model and machine still do what they did.

    Args:
        path: The clip's folder.
        load: Loads the model by its name, for a device.
        on_block: Is told of each block that is on disk.
        on_restored: Is told how many finished blocks are restored, and of how many.

    Raises:
        SwiftdiffError: The folder is no clip's or is damaged, or the model cannot be loaded. Later mistakes
            are in `ClipEnded`.
    """
    folder = ClipFolder.open(path)
    info, config = folder.read_info(), folder.read_config()
    folder.drop_torn_record()
    records = folder.read_records()
    if len(records) >= info.request.num_blocks:
        return _complete(folder, info, records)
    making = Making(folder, info, records, on_block=on_block, on_restored=on_restored)
    model = load(config.model, info.device)
    return _make(model, config, info.request, lambda: making, spent_s=making.spent_s)


def _check_length(config: WorldConfig, request: ClipRequest) -> None:
    most = config.cache.max_blocks
    if config.cache.policy == "full" and request.num_blocks > most:
        raise ConfigError.for_field(
            "num_blocks",
            request.num_blocks,
            f"at most {most}, cache.max_blocks of the policy full; the policy window has no such limit",
        )


def _complete(folder: ClipFolder, info: ClipInfo, records: list[BlockRecord]) -> ClipEnded:
    """Return a clip whose blocks are all there; what ended it may have been quicker than its summary."""
    try:
        summary = json.loads(folder.summary_path.read_bytes())
    except (OSError, ValueError):
        summary = {}
    if summary.get("outcome") == "complete":
        return ClipEnded(folder, "complete", summary)
    return Making(folder, info, records).finish()


def _make(
    model: WorldModel,
    config: WorldConfig,
    request: ClipRequest,
    take_up: Callable[[], Making],
    *,
    spent_s: float,
) -> ClipEnded:
    for steer in request.steers:  # before there is a folder, and not in the middle of the clip
        model.prompts.encode(steer.text)
    began_s = time.perf_counter() - spent_s
    timeline = Timeline(lambda: time.perf_counter() - began_s)
    with (
        WorldEngine(model, config, timeline=timeline) as engine,
        engine.open(request.prompt, request.seed) as session,
    ):
        making = take_up()
        making.run(session, model.settings.block_shape, timeline)
    return making.finish()


def _findable(config: WorldConfig) -> WorldConfig:
    """Return a config whose model, if it is a folder, is found from any working folder."""
    if config.model in (EMBEDDED, *PRESETS) or not Path(config.model).is_dir():
        return config
    return config.model_copy(update={"model": str(Path(config.model).resolve())})
