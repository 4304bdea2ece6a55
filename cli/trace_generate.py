"""The command ``swiftdiff trace generate``: a spec in, a trace with its control images out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .counting import counting

EXIT_INTERRUPTED = 130


def generate(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="SPEC",
            help="A TOML file, or a shipped spec: bursty, many-loras, paper, production, steady.",
        ),
    ],
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The trace; gzipped if it ends in .gz.")
    ] = Path("trace.jsonl"),
    requests: Annotated[
        int | None, typer.Option("--requests", "-n", metavar="N", help="How many; else as SPEC says.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(metavar="S", help="Or all that arrive in the first S seconds.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Of all that is drawn; else SPEC's.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
) -> None:
    """Make a trace up from SPEC, with the control images that it needs.

    The same spec and seed give the same bytes. Fewer requests are the beginning
    of more.

    Exit codes: 0 done; 2 a mistake in the command or in SPEC; 130 Ctrl-C.
    """
    from swiftdiff.errors import ConfigError
    from swiftdiff.request import MAX_SEED
    from swiftdiff.trace import write_trace
    from swiftdiff.trace.content import trace_stem
    from swiftdiff.trace.importers.prompts import read_prompts
    from swiftdiff.trace.synthesis import generator
    from swiftdiff.trace.synthesis.spec import find_spec, load_spec

    if requests is not None and duration is not None:
        raise ConfigError("--requests and --duration are both given, but must be one of them")
    if requests is not None and requests < 1:
        raise ConfigError.for_field("--requests", requests, "at least 1")
    if duration is not None and not 0 < duration < float("inf"):
        raise ConfigError.for_field("--duration", duration, "a number of seconds above 0")
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise ConfigError.for_field("--seed", seed, f"an integer from 0 to {MAX_SEED}")
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; choose another -o or use --force")
    spec_path = find_spec(spec)
    loaded = load_spec(spec_path)
    seed = loaded.seed if seed is None else seed
    count = None if duration is not None else requests or loaded.requests
    file = loaded.prompts.file
    prompts = read_prompts(spec_path.parent / Path(file).expanduser()) if file is not None else []
    pool = generator.content_pool(loaded, seed, trace_stem(out))
    taken = generator.take(generator.generate(loaded, seed, pool, prompts), count, duration)
    options: dict[str, int | float] = (
        {"requests": count} if count is not None else {"duration": duration or 0.0}
    )
    try:
        with counting("made", count) as watch:
            whole = generator.finishing(watch(taken), lambda: pool.write_images(out.parent))
            written = write_trace(out, whole, generator.provenance(spec_path, seed, options))
    except KeyboardInterrupt:
        typer.echo("interrupted: no trace is written", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None

    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{out}: {written} requests, seed {seed}", markup=False)
    times = (spec_path.parent / (loaded.load_times or ".")).resolve()
    if times.is_file():
        console.print(f"load times for [adapters.emulate] latency_file: {times}", markup=False)
