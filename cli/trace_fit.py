"""The command ``swiftdiff trace fit``: real requests in, a spec that makes more like them out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def fit(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="A trace, or a folder with the files of GenTD26."),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The spec, a TOML file.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
) -> None:
    """Fit a spec to SOURCE: arrivals, adapters per request, their reuse and popularity, settings.

    `swiftdiff trace generate FILE` then makes requests like those of SOURCE.
    Load times of GenTD26, if there, become quantiles in a CSV file beside FILE.

    Exit codes: 0 done; 2 a mistake in the command or in SOURCE.
    """
    from swiftdiff.errors import ConfigError
    from swiftdiff.trace.synthesis.fit import assumptions, fit_spec, write_load_times, write_spec
    from swiftdiff.trace.synthesis.observations import observe

    if out.suffix != ".toml":
        raise ConfigError.for_field("-o", str(out), "a name that ends in .toml")
    times = out.with_name(f"{out.stem}-load-times.csv")
    taken = [path for path in (out, times) if path.exists()]
    if taken and not force:
        raise ConfigError(f"{taken[0]} exists; choose another -o or use --force")

    from rich.console import Console

    console = Console(highlight=False)
    with Console(stderr=True).status("reading and fitting"):
        observed = observe(source)
        spec = fit_spec(observed, times.name if observed.load_times_s else None)
    if observed.load_times_s:
        write_load_times(times, observed.load_times_s)
        console.print(f"{times}: quantiles of measured load times", markup=False, soft_wrap=True)
    write_spec(out, spec, observed)
    console.print(f"{out}: fitted to {len(observed.loras)} requests", markup=False, soft_wrap=True)
    for part, how in sorted(assumptions(observed).items()):
        console.print(f"made up, {part}: {how}", markup=False)
