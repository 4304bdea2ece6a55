"""The command ``swiftdiff serve-local``: an image server for this machine, or for those it is opened to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swiftdiff.errors import ConfigError

from .options import ApiKeyFile, Host, Port

if TYPE_CHECKING:
    from swiftdiff.server.config import ServerConfig
    from swiftdiff.server.world_service import WorldService

DEFAULT_CONFIG = "configs/swiftdiff.toml"
CURL = """\
  curl -s {address}/v1/images/generations -H 'Content-Type: application/json' \\
    -H 'Accept: image/png'{key} -o picture.png \\
    -d '{{"prompt": "a large red circle on a sand background", "seed": 7}}'"""


def serve_local(
    *,
    config: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG.toml", help="The system that serves. Default: the engine on shapes."),
    ] = None,
    server: Annotated[
        Path | None,
        typer.Option(metavar="SERVER.toml", help="The server's settings; options take their place."),
    ] = None,
    host: Host = None,
    port: Port = None,
    api_key_file: ApiKeyFile = None,
    policy: Annotated[
        str | None, typer.Option(metavar="NAME", help="fifo, adapter-affinity or edf. Default: fifo.")
    ] = None,
    queue_size: Annotated[
        int | None, typer.Option(metavar="N", help="Requests that may wait; more get 429. Default: 64.")
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Pictures denoised as one where that measures faster; 1: never. Default: 4.",
        ),
    ] = None,
    drain_s: Annotated[
        float | None,
        typer.Option("--drain", metavar="SECONDS", help="Time to serve the rest after SIGTERM. Default: 30."),
    ] = None,
    access_log: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|none", help="A JSON line a request. Default: results/serve-local/access.jsonl."
        ),
    ] = None,
    stock: Annotated[
        bool | None,
        typer.Option(
            "--stock/--no-stock",
            help="Let requests ask for stock diffusers too, which loads the model a second time.",
        ),
    ] = None,
    world: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Show live worlds of this model too, at /world/: bounce, or a folder."
        ),
    ] = None,
) -> None:
    """Serve pictures over HTTP, as OpenAI's Images API, and a page to try it.

    With no option the embedded model is served to this machine alone. SIGTERM and
    Ctrl-C serve what was accepted and end; a second one ends at once.

    Exit codes: 0 ended as asked; 2 a mistake in the command or its files, a port
    in use, or a model that cannot be served any more.
    """
    from swiftdiff.config import load_config
    from swiftdiff.engine.session import resolve_paths
    from swiftdiff.models.quiet import quiet_libraries
    from swiftdiff.resources import path as resource
    from swiftdiff.server.config import load_server_config

    settings = load_server_config(
        server,
        host=host,
        port=port,
        api_key=None if api_key_file is None else read_key(api_key_file),
        policy=policy,
        queue_size=queue_size,
        max_batch=max_batch,
        drain_s=drain_s,
        access_log=access_log,
        stock=stock,
    )
    path = config if config is not None else resource(DEFAULT_CONFIG)
    serving = resolve_paths(load_config(path), path.resolve().parent)
    with quiet_libraries():
        from swiftdiff.server.run import run_server

    def announce(address: str) -> None:
        key = "" if settings.api_key is None else " -H 'Authorization: Bearer KEY'"
        print(f"{serving.name} serves {Path(serving.model).name}. Page: {address}/")
        if world is not None:
            print(f"World {Path(world).name} runs at {address}/world/")
        print(CURL.format(address=address, key=key), flush=True)

    def loading() -> None:
        warn_if_open(settings)
        typer.echo(f"loading {Path(serving.model).name}", err=True)

    run_server(
        settings,
        serving,
        announce=announce,
        loading=loading,
        open_worlds=None if world is None else lambda: _open_worlds(world),
    )


def _open_worlds(model: str) -> WorldService:
    from swiftdiff.server.world_config import StreamConfig
    from swiftdiff.server.world_run import open_worlds
    from swiftdiff.world.config import WorldConfig

    return open_worlds(WorldConfig(model=model), StreamConfig())


def warn_if_open(settings: ServerConfig) -> None:
    """Say so if a server is open to others and asks them for no key."""
    if not settings.is_local and settings.api_key is None:
        typer.secho(
            f"warning: others reach {settings.host}, and no key is asked for (--api-key-file)",
            fg="yellow",
            err=True,
        )


def read_key(path: Path) -> str:
    """Return the API key that a file holds."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"cannot read API key {path}: {reason}") from error
