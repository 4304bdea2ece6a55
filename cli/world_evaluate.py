"""The command ``swiftdiff world evaluate``: judges the embedded world's clips and writes its card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from swiftdiff.world.bounce.evaluation import Evaluation, EvaluationOptions


def evaluate(  # noqa: PLR0917 - a command's options
    model: Annotated[str, typer.Argument(help="bounce, or the folder of a trained bounce.")] = "bounce",
    clips: Annotated[int, typer.Option(min=5, help="Clips of each of the two kinds.")] = 100,
    blocks: Annotated[int, typer.Option(min=3, help="Blocks of the clips without actions.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Of scenes; clip i has the noise of SEED + i.")] = 1000,
    renoise: Annotated[
        bool, typer.Option("--renoise", help="Fresh noise at each step instead of following the flow.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the reports; default results/evaluate-MODEL.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print evaluation.json, not a table.")] = False,
) -> None:
    """Make clips with MODEL and judge their pixels against the true physics.

    Judged are the centres of balls over the first three blocks, whether their
    number and colours are kept, and whether actions are obeyed. Beside each
    number stands what the true clips score by the same judge.

    Exit status: 0 when all aims are met; 1 when one is missed, and the last
    lines say which; 2 when the command is wrong or the model cannot be loaded;
    130 after Ctrl-C.
    The aims: centres within 1.5 pixels; kept 0.90; obeyed 0.90.
    """
    from swiftdiff.world.bounce.evaluation import EvaluationOptions
    from swiftdiff.world.bounce.evaluation import evaluate as evaluate_world
    from swiftdiff.world.bounce.evaluation_report import write_reports
    from swiftdiff.world.config import SamplerConfig
    from swiftdiff.world.loading import load_world

    options = EvaluationOptions(
        clips=clips, blocks=blocks, seed=seed, sampler=SamplerConfig(renoise=True) if renoise else None
    )
    loaded = load_world(model)
    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.description:26}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks = {}

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        evaluation = evaluate_world(loaded, options, report)
    name = Path(model).name
    files = write_reports(evaluation, options, name, out or Path("results") / f"evaluate-{name}")
    if as_json:
        print(files[0].read_text(encoding="utf-8"), end="")
    else:
        _print_results(name, evaluation, options, files)
    missed = [measure for measure in evaluation.measures if not measure.is_met]
    for measure in missed:
        console.print(f"missed: {measure.name} {measure.reached.value:.3f}", markup=False)
    raise typer.Exit(1 if missed else 0)


def _print_results(name: str, evaluation: Evaluation, options: EvaluationOptions, files: list[Path]) -> None:
    from swiftdiff.world.bounce.evaluation_report import aim_text, how_judged

    table = Table(title=f"{name}: what its clips show", title_justify="left")
    table.add_column("measure", no_wrap=True)
    for column in ("reached", "95 %", "aim", "truth", "n"):
        table.add_column(column, justify="right", no_wrap=True)
    for measure in evaluation.measures:
        reached = measure.reached
        table.add_row(
            measure.name,
            f"{reached.value:.2f}",
            f"{reached.low:.2f}–{reached.high:.2f}",
            aim_text(measure),
            f"{measure.truth.value:.2f}",
            str(reached.count),
            style=None if measure.is_met else "red",
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(how_judged(options), markup=False)
    for file in files:
        console.print(str(file), markup=False, soft_wrap=True)
