"""Writes down what was measured of bounce: its card, the numbers, and clips to look at."""

from __future__ import annotations

import json
from pathlib import Path

from swiftdiff.files import write_whole

from .contact_sheet import draw_sheet
from .evaluation import ACTION_BLOCK, FOLLOWED_BLOCKS, Evaluation, EvaluationOptions, Measure
from .scene import ACTION_NAMES


def write_reports(evaluation: Evaluation, options: EvaluationOptions, model: str, folder: Path) -> list[Path]:
    """Write evaluation.json, MODEL_CARD.md and a PNG for each sheet; return their paths in that order.

    Raises:
        StorageError: They cannot be written.
    """
    content = {
        "model": model,
        "weights_sha256": evaluation.weights_sha256,
        "clips": options.clips,
        "blocks": options.blocks,
        "seed": options.seed,
        "noise_seeds": [options.seed, options.seed + options.clips - 1],
        "renoise": None if options.sampler is None else options.sampler.renoise,
        "judged": how_judged(options),
        "measures": [
            {
                "name": measure.name,
                "reached": measure.reached.as_dict(),
                "truth": measure.truth.as_dict(),
                "aim": measure.aim,
                "is_met": measure.is_met,
            }
            for measure in evaluation.measures
        ],
    }
    files = {
        "evaluation.json": (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode(),
        "MODEL_CARD.md": model_card(evaluation, options).encode(),
        **{f"{sheet.name}.png": draw_sheet(sheet) for sheet in evaluation.sheets},
    }
    for name, data in files.items():
        write_whole(folder / name, data)
    return [folder / name for name in files]


def how_judged(options: EvaluationOptions) -> str:
    """Return what the numbers of a table are, for whoever reads it."""
    last = options.seed + options.clips - 1
    return (
        f"Judged by pixels alone: {options.clips} clips without actions (centres of balls over the first "
        f"{FOLLOWED_BLOCKS} blocks, number and colours over {options.blocks}) and {options.clips} with an "
        f"action in block {ACTION_BLOCK}. Scenes of seed {options.seed}, noise of seeds {options.seed} to "
        f"{last}. Truth: what true clips score by the same judge. n: clips; of centres, balls in frames. "
        "95 %: of centres by a bootstrap that draws whole clips, else Wilson's interval."
    )


def model_card(evaluation: Evaluation, options: EvaluationOptions) -> str:
    """Return the card's text: what the world is, what was measured, and whether that is enough."""
    missed = [measure for measure in evaluation.measures if not measure.is_met]
    verdict = (
        "All aims are met."
        if not missed
        else f"**Not good enough**: aims missed: {'; '.join(measure.name for measure in missed)}."
    )
    rows = "\n".join(
        f"| {measure.name} | {measure.reached.value:.3f} | {measure.reached.low:.3f} to "
        f"{measure.reached.high:.3f} | {aim_text(measure)} | {measure.truth.value:.3f} | "
        f"{measure.reached.count} |"
        for measure in evaluation.measures
    )
    sheets = "\n".join(f"- `{sheet.name}.png`: {len(sheet.pairs)} clips" for sheet in evaluation.sheets)
    return f"""# bounce: a world of balls, block by block

Pictures of 32x32 with one or two balls that keep their speed and bounce off the walls and off
one another. A block is three frames. Prompts are a scene for the first block, then one of
{", ".join(f"`{name}`" for name in ACTION_NAMES)}.

{verdict}

{how_judged(options)}

| measure | reached | 95 % | aim | truth | n |
|---|---|---|---|---|---|
{rows}

Weights: SHA-256 {evaluation.weights_sha256}

To look at, the true course above and the generated clip below, the first clips and some of the worst:

{sheets}
"""


def aim_text(measure: Measure) -> str:
    """Return an aim such as ``≥ 0.90``, or nothing."""
    if measure.aim is None:
        return ""
    return f"{'≤' if measure.at_most else '≥'} {measure.aim:.2f}"
