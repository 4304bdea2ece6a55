"""The command ``swiftdiff models evaluate``: measures a family by its pictures and writes its model card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from swiftdiff.errors import ConfigError

if TYPE_CHECKING:
    from swiftdiff.quality.evaluate import Evaluation
    from swiftdiff.quality.evaluate import Progress as Report
    from swiftdiff.quality.plan import Part

_QUICK_PROMPTS = 40
_FULL_PROMPTS = 500


def evaluate(
    *,
    model: Annotated[str, typer.Argument(help="The embedded model, or a family folder.")] = "shapes",
    prompts: Annotated[
        int | None, typer.Option(min=1, help="Prompts for the base; the other sets follow. Default 500.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps of each picture.")] = 20,
    guidance: Annotated[float, typer.Option(min=0, help="Guidance scale.")] = 5.0,
    seed: Annotated[
        int, typer.Option(min=0, help="Chooses prompts; picture i is drawn with SEED + i.")
    ] = 1000,
    part: Annotated[
        list[str] | None, typer.Option(help="base, controlnets or loras; repeat it. Default all.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="40 prompts: minutes, but wide intervals.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for pictures and reports; default results/evaluate-MODEL.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures drawn at once.")] = 8,
    device: Annotated[str, typer.Option(help="Where to draw: cpu, cuda, cuda:1 …")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print evaluation.json, not a table.")] = False,
) -> None:
    """Draw pictures with MODEL, judge their pixels, and write its model card.

    Judged are colour, shape, size, relation and background of every object
    that a prompt names, how well pictures follow the ControlNets' control
    images, and whether each LoRA's style is recognised.

    In the folder: MODEL_CARD.md, evaluation.json, contact sheets, pictures/,
    and pictures.jsonl with a line a picture. The same command goes on after an
    interruption and draws nothing twice.

    Exit status: 0 when the card's aims for the chosen parts are met; 1 when one
    is missed, and the last lines say which; 2 when the command is wrong or the
    model cannot be loaded. The aims: colour 0.95; shape, size and relation
    0.90; held-out pairs 0.80; edge F1 0.80; each LoRA recognised 0.90.
    """
    from swiftdiff.models.registry import resolve_model
    from swiftdiff.quality.artist import FamilyArtist
    from swiftdiff.quality.evaluate import evaluate_family
    from swiftdiff.quality.plan import EvaluationOptions, scale_to

    parts = _parts(part)
    options = EvaluationOptions(
        num_inference_steps=steps,
        guidance_scale=guidance,
        seed=seed,
        batch_size=batch_size,
        device=device,
    )
    options = scale_to(options, prompts or (_QUICK_PROMPTS if quick else _FULL_PROMPTS))
    source = resolve_model(model)
    folder = out or Path("results") / f"evaluate-{Path(model).name}"
    console = Console(stderr=True, highlight=False)
    try:
        with _progress(console) as report:
            artist = FamilyArtist(source, options)
            found = evaluate_family(model, artist, options, folder, parts=parts, progress=report)
    except KeyboardInterrupt:
        console.print(f"stopped; the same command goes on with what is in {folder}", markup=False)
        raise typer.Exit(130) from None
    files = _write_reports(found, folder, source.path)
    missed = found.missed(parts)
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        _print_results(found, files)
    for result in missed:
        reached = "not measured" if result.reached is None else f"{result.reached.value:.3f}"
        console.print(f"missed: {result.aim.metric} {reached}, aim {result.aim.least:.2f}", markup=False)
    raise typer.Exit(1 if missed else 0)


def _parts(names: list[str] | None) -> tuple[Part, ...]:
    from swiftdiff.quality.plan import PARTS

    unknown = [name for name in names or () if name not in PARTS]
    if unknown:
        raise ConfigError.for_field("--part", unknown[0], f"one of {', '.join(PARTS)}")
    return tuple(name for name in PARTS if not names or name in names)


@contextmanager
def _progress(console: Console) -> Iterator[Report]:
    """A progress bar for each set of pictures."""
    columns = (
        TextColumn("{task.description:22}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks = {}

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total, completed=done)
            bars.update(tasks[name], completed=done)

        yield report


def _write_reports(found: Evaluation, folder: Path, base: Path | None) -> list[Path]:
    from swiftdiff.quality.contact_sheet import write_contact_sheets
    from swiftdiff.quality.evaluate import write_text
    from swiftdiff.quality.model_card import evaluation_command, model_card

    card = folder / "MODEL_CARD.md"
    if base is not None:
        write_text(card, model_card(found, base, evaluation_command(found)))
    return [card, *write_contact_sheets(found, folder)]


def _print_results(found: Evaluation, files: list[Path]) -> None:
    from swiftdiff.quality.model_card import result_rows

    table = Table(title=f"{found.model}: what its pictures show", title_justify="left")
    for name in ("what", "measure"):
        table.add_column(name, no_wrap=True)
    for name in ("reached", "95 %", "aim", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in result_rows(found):
        estimate = row.estimate
        is_met = row.aim is None or estimate.value >= row.aim
        table.add_row(
            row.subject,
            row.metric,
            f"{estimate.value:.3f}",
            f"{estimate.low:.2f}–{estimate.high:.2f}",
            "" if row.aim is None else f"{row.aim:.2f}",
            str(estimate.count),
            style=None if is_met else "red",
        )
    console = Console(highlight=False)
    console.print(table)
    for file in files:
        console.print(str(file), markup=False, soft_wrap=True)
