"""The command ``swiftdiff world stream``: a page where a world runs live and buttons steer it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import ApiKeyFile, Host, Port


def stream(  # noqa: PLR0917 - a command's options
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="bounce, or a folder in diffusers format.")
    ] = None,
    host: Host = None,
    port: Port = None,
    api_key_file: ApiKeyFile = None,
    fps: Annotated[
        float | None, typer.Option(metavar="N", help="Frames a second at most. Default: the model's.")
    ] = None,
    viewers: Annotated[
        int | None, typer.Option(metavar="N", help="Streams at one time; more get 429. Default: 16.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML of how the world is run; options here go before it."),
    ] = None,
    sessions: Annotated[
        int | None, typer.Option(metavar="N", help="Worlds side by side; more get 429. Default: 4.")
    ] = None,
    memory_budget: Annotated[
        float | None, typer.Option(metavar="MB", help="For the caches of all worlds. Default: no limit.")
    ] = None,
    window: Annotated[int | None, typer.Option(metavar="N", help="Past blocks that a block sees.")] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Of the CPU. Default: 1 for a small model.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Serve a page where a world runs live and is steered.

    Pictures go over HTTP as a browser's <img> takes them too. A slow browser
    loses frames, which are counted, and holds up no other. SIGTERM and Ctrl-C
    end all worlds; a second one ends at once.

    Exit codes: 0 ended as asked; 2 a mistake in the command or its files, or a
    port in use.
    """
    from swiftdiff.models.quiet import quiet_libraries
    from swiftdiff.server.config import load_server_config
    from swiftdiff.world.config_file import load_world_config

    from .serve_local import read_key, warn_if_open

    settings = load_server_config(
        None, host=host, port=port, api_key=None if api_key_file is None else read_key(api_key_file)
    )
    world = load_world_config(
        config,
        {
            "model": model,
            "max_sessions": sessions,
            "memory_budget_mb": memory_budget,
            "cache.window_blocks": window,
            "threads": threads,
        },
    )
    with quiet_libraries():
        from swiftdiff.server.world_config import load_stream_config
        from swiftdiff.server.world_run import open_worlds, run_worlds

    shown = load_stream_config(max_viewers=viewers, fps=fps)

    def loading() -> None:
        warn_if_open(settings)
        typer.echo(f"loading {Path(world.model).name}", err=True)

    def announce(address: str) -> None:
        print(f"world {Path(world.model).name} runs here. Page: {address}/world/", flush=True)

    run_worlds(settings, lambda: open_worlds(world, shown, device), announce=announce, loading=loading)
