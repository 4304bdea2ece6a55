"""Writes the model card: what the family is, what it is for, and what was measured, in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from swiftdiff.errors import ModelError
from swiftdiff.models.registry import count_parameters, read_json
from swiftdiff.scenes import BACKGROUNDS, COLOURS, HELD_OUT_PAIRS, SHAPES, SIZES

from .adherence import MEASURE_NAMES
from .evaluate import Evaluation
from .statistics import Estimate

_ATTRIBUTES = ("colour", "shape", "size", "relation", "background", "count", "all_right")
_ATTRIBUTE_WORDS = {"all_right": "everything at once", "count": "number of objects"}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the card's table of results; `aim` is None where nothing is promised."""

    subject: str
    metric: str
    estimate: Estimate
    aim: float | None


def result_rows(evaluation: Evaluation) -> list[Row]:
    """The headline results in the card's order: what a table on a terminal shows as well."""
    aims = {result.aim.metric: result.aim.least for result in evaluation.aims}
    wanted: list[tuple[str, str, str]] = [
        ("base", _ATTRIBUTE_WORDS.get(name, name), f"base.{name}") for name in _ATTRIBUTES
    ]
    wanted += [("held-out pairs", "colour and shape", "held_out.pair")]
    wanted += [("held-out pairs", "everything at once", "held_out.all_right")]
    for item in evaluation.sets:
        if item.controlnet:
            measure = MEASURE_NAMES[item.controlnet]
            wanted.append((f"ControlNet {item.controlnet}", measure, f"{item.name}.adherence"))
            wanted.append(("… without it", measure, f"base.floor.{item.controlnet}"))
            wanted.append((f"ControlNet {item.controlnet}", "everything at once", f"{item.name}.all_right"))
        if item.lora:
            wanted.append((f"LoRA {item.lora}", "style recognised", f"{item.name}.recognised"))
            wanted.append((f"LoRA {item.lora}", "attributes kept", f"{item.name}.attributes"))
    metrics = evaluation.metrics
    return [
        Row(subject, metric, metrics[key], aims.get(key)) for subject, metric, key in wanted if key in metrics
    ]


def model_card(evaluation: Evaluation, base: Path, command: str) -> str:
    """The card's text; `base` is the diffusers folder, `command` what measured the numbers.

    Raises:
        ModelError: The base's configs cannot be read.
    """
    options = evaluation.options
    unmet = [result.aim.metric for result in evaluation.missed()]
    verdict = "All aims are met." if not unmet else f"Missed or not measured: {', '.join(unmet)}."
    sections = [
        f"# Model card: {evaluation.model}",
        _what_it_is(base),
        "## Data",
        _data(),
        "## Use",
        _USE,
        "## Results",
        f"Measured by\n\n```\n{command}\n```\n\n"
        f"{options.num_inference_steps} steps, guidance {options.guidance_scale:g}, scheduler "
        f"{options.scheduler}, {options.dtype} on {options.device}, seeds {options.seed} and up. "
        "The judge looks at pixels only: it segments by colour, fits every shape and reads positions; on "
        "rendered pictures it is right in more than 99 % of attributes. Intervals are 95 % ones. "
        "Styles are recognised by a linear classifier that was trained on rendered pictures only. "
        "“Without it” is the base's picture of the same prompt and seed against the same control image.",
        _table(result_rows(evaluation)),
        verdict,
        *_details(evaluation),
        "## Limits",
        _LIMITS,
    ]
    return "\n\n".join(sections) + "\n"


_USE = """For tests, demonstrations and measurements of serving systems: prompts change the picture,
ControlNets steer it and LoRAs restyle it, on a machine without a GPU and without a network. It is not a
general text-to-image model: outside its world's words it draws something, but not what was asked."""

_LIMITS = """- It knows only the words of its world, and reads prompts up to its encoders' number of tokens.
- Pictures of other sizes than the native one were never trained.
- Aims are about this world. They show that a serving system leaves a picture as it was, not that a method
  transfers to models that draw photographs.
- Styles hide attributes: some have no colours, and eight pixels a block leave little of a small star."""


def _what_it_is(base: Path) -> str:
    unet, vae = read_json(base / "unet" / "config.json"), read_json(base / "vae" / "config.json")
    encoders = [read_json(base / name / "config.json") for name in ("text_encoder", "text_encoder_2")]
    try:
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        channels = "/".join(str(width) for width in unet["block_out_channels"])
        widths = " and ".join(str(encoder["hidden_size"]) for encoder in encoders)
        layers = " and ".join(str(encoder["num_hidden_layers"]) for encoder in encoders)
        side = int(unet["sample_size"]) * factor
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{base}: a config of the pipeline is incomplete: {error!r}") from error
    lines = [
        f"A small latent diffusion model, SDXL in architecture and classes; pictures of {side}×{side}.",
        "",
        "| part | what | parameters |",
        "|---|---|---|",
        f"| UNet | `UNet2DConditionModel`, channels {channels}, {unet['layers_per_block']} layer(s) a block, "
        f"`text_time` | {_millions(base / 'unet')} |",
        f"| autoencoder | `AutoencoderKL`, {factor}× smaller, {vae['latent_channels']} channels "
        f"| {_millions(base / 'vae')} |",
        f"| text encoders | two CLIP, widths {widths}, {layers} layers "
        f"| {_millions(base / 'text_encoder', base / 'text_encoder_2')} |",
    ]
    root = base.parent
    for kind in sorted(path.name for path in (root / "controlnets").glob("*") if path.is_dir()):
        lines.append(f"| ControlNet | {kind} | {_millions(root / 'controlnets' / kind)} |")
    loras = sorted((root / "loras").glob("*.safetensors"))
    if loras:
        size = sum(path.stat().st_size for path in loras) / 1e6
        names = ", ".join(path.stem for path in loras)
        lines.append(f"| LoRAs | {names} | {size:.1f} MB together |")
    return "\n".join(lines)


def _millions(*folders: Path) -> str:
    return f"{sum(count_parameters(folder) for folder in folders) / 1e6:.2f} M"


def _data() -> str:
    pairs = ", ".join(f"{colour} {shape}" for colour, shape in sorted(HELD_OUT_PAIRS))
    return (
        "Pictures rendered from signed distance functions, fresh ones for every training step, with captions "
        f"made from what was rendered: {len(SHAPES)} shapes ({', '.join(SHAPES)}), {len(COLOURS)} colours "
        f"({', '.join(COLOURS)}), {len(SIZES)} sizes, {len(BACKGROUNDS)} backgrounds "
        f"({', '.join(BACKGROUNDS)}), one to three objects and their relations. No photographs, no people, "
        f"no text of others. Pairs that training never showed, to test composition: {pairs}."
    )


def _table(rows: Iterable[Row]) -> str:
    lines = ["| what | measure | reached | 95 % | aim | n |", "|---|---|---|---|---|---|"]
    for row in rows:
        estimate = row.estimate
        aim = "" if row.aim is None else f"≥ {row.aim:.2f} {'✓' if estimate.value >= row.aim else '✗'}"
        interval = f"{estimate.low:.3f}–{estimate.high:.3f}"
        lines.append(
            f"| {row.subject} | {row.metric} | {estimate.value:.3f} | {interval} | {aim} | {estimate.count} |"
        )
    return "\n".join(lines)


def _details(evaluation: Evaluation) -> list[str]:
    """The base's results by number of objects and by name."""
    metrics = evaluation.metrics
    if "base.colour" not in metrics:
        return []
    lines = ["| objects | colour | shape | size | relation | everything |", "|---|---|---|---|---|---|"]
    for number in (1, 2, 3):
        keys = [f"base.with_{number}.{name}" for name in ("colour", "shape", "size", "relation", "all_right")]
        if keys[0] in metrics:
            lines.append(f"| {number} | " + " | ".join(f"{metrics[key].value:.3f}" for key in keys) + " |")
    by_name = [
        f"- {name}: " + ", ".join(_values(evaluation, f"base.{name}.", options))
        for name, options in (("colour", list(COLOURS)), ("shape", list(SHAPES)), ("size", list(SIZES)))
    ]
    found = ["By number of objects:", "\n".join(lines), "By name:", "\n".join(by_name)]
    return found + _styled_details(evaluation)


def _styled_details(evaluation: Evaluation) -> list[str]:
    """What every LoRA keeps of its prompts, beside what the style's own renderings show."""
    metrics = evaluation.metrics
    lines = ["| LoRA | shape | size | colour | in place |", "|---|---|---|---|---|"]
    for item in evaluation.sets:
        if f"{item.name}.in_place" not in metrics:
            continue
        cells = []
        for name in ("shape", "size", "colour"):
            drawn, best = (metrics.get(f"{item.name}.{name}{suffix}") for suffix in ("", "_rendered"))
            cells.append(f"{drawn.value:.3f} of {best.value:.3f}" if drawn and best else "")
        cells.append(f"{metrics[f'{item.name}.in_place'].value:.3f}")
        lines.append(f"| {item.lora} | " + " | ".join(cells) + " |")
    if len(lines) == 2:
        return []
    text = (
        "What of a prompt is kept under each LoRA, read by finding the rendering in that style that comes "
        "nearest to the picture; after “of”, what the same reading finds in renderings of the same scenes:"
    )
    return [text, "\n".join(lines)]


def _values(evaluation: Evaluation, prefix: str, names: Sequence[str]) -> list[str]:
    metrics = evaluation.metrics
    return [f"{name} {metrics[prefix + name].value:.3f}" for name in names if prefix + name in metrics]


def evaluation_command(evaluation: Evaluation) -> str:
    """The command line that measures the same numbers again."""
    options = evaluation.options
    model = json.dumps(evaluation.model) if " " in evaluation.model else evaluation.model
    return (
        f"swiftdiff models evaluate {model} --prompts {options.prompts} "
        f"--steps {options.num_inference_steps} --guidance {options.guidance_scale:g} --seed {options.seed}"
    )
