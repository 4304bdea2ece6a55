"""Turns an evaluation's records into metrics, and compares them with the model card's aims."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from swiftdiff.scenes import HELD_OUT_PAIRS

from .plan import BASE, HELD_OUT, Part, PictureSet
from .records import ObjectMarks, PictureRecord
from .statistics import Estimate, mean_of, wilson_share

Metrics = dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class Aim:
    """What the model card promises of one metric."""

    metric: str
    part: Part
    least: float


@dataclass(frozen=True, slots=True)
class AimResult:
    """An aim and what was reached; `reached` is None when it was not measured."""

    aim: Aim
    reached: Estimate | None

    @property
    def is_met(self) -> bool:
        """Whether the measured value is at least what was aimed at."""
        return self.reached is not None and self.reached.value >= self.aim.least


_ATTRIBUTE_AIMS: Final = {"colour": 0.95, "shape": 0.90, "size": 0.90, "relation": 0.90}
_HELD_OUT_AIM: Final = 0.80
_EDGE_AIM: Final = 0.80
_LORA_AIM: Final = 0.90


def aims_of(sets: Iterable[PictureSet]) -> tuple[Aim, ...]:
    """The aims that apply to a family with these sets: every LoRA has its own."""
    aims: list[Aim] = []
    for item in sets:
        if item.name == BASE:
            aims += [Aim(f"base.{name}", "base", least) for name, least in _ATTRIBUTE_AIMS.items()]
        elif item.name == HELD_OUT:
            aims.append(Aim("held_out.pair", "base", _HELD_OUT_AIM))
        elif item.controlnet == "edges":
            aims.append(Aim("controlnet.edges.adherence", "controlnets", _EDGE_AIM))
        elif item.lora:
            aims.append(Aim(f"{item.name}.recognised", "loras", _LORA_AIM))
    return tuple(aims)


def check_aims(aims: Iterable[Aim], metrics: Mapping[str, Estimate]) -> tuple[AimResult, ...]:
    """Each aim with what was reached."""
    return tuple(AimResult(aim, metrics.get(aim.metric)) for aim in aims)


def summarize_set(picture_set: PictureSet, records: Sequence[PictureRecord]) -> Metrics:
    """All metrics of one set, named `<set>.<metric>`; none without records."""
    if not records:
        return {}
    found = _attributes(records) if picture_set.lora is None else {}
    if picture_set.name == BASE:
        found |= _breakdowns(records) | _floors(records)
        found["plain_recognised"] = _share(record.style == "plain" for record in records)
    if picture_set.name == HELD_OUT:
        found["pair"] = _share(
            bool(item.colour_right and item.shape_right)
            for record in records
            for item in record.objects
            if (item.colour, item.shape) in HELD_OUT_PAIRS
        )
    if picture_set.controlnet:
        found["adherence"] = mean_of([record.adherence[picture_set.controlnet] for record in records])
    if picture_set.lora:
        found |= _styled_attributes(records)
        found["recognised"] = _share(record.style == picture_set.lora for record in records)
    return {f"{picture_set.name}.{name}": estimate for name, estimate in found.items()}


def _share(answers: Iterable[bool]) -> Estimate:
    listed = list(answers)
    return wilson_share(sum(listed), len(listed))


def _attributes(records: Sequence[PictureRecord]) -> Metrics:
    items = [item for record in records for item in record.objects]
    return {
        "colour": _share(bool(item.colour_right) for item in items),
        "shape": _share(item.shape_right for item in items),
        "size": _share(item.size_right for item in items),
        "relation": _share(record.relation_right for record in records),
        "background": _share(bool(record.background_right) for record in records),
        "count": _share(bool(record.count_right) for record in records),
        "all_right": _share(record.all_right for record in records),
    }


def _styled_attributes(records: Sequence[PictureRecord]) -> Metrics:
    """What of the prompts is kept under a LoRA, and what the judge reads off the style's own renderings."""
    found: Metrics = {"in_place": _share(record.relation_right for record in records)}
    drawn = [item for record in records for item in record.objects]
    rendered = [item for record in records for item in record.rendered_objects]
    for items, suffix in ((drawn, ""), (rendered, "_rendered")):
        answers = {
            "shape": [item.shape_right for item in items],
            "size": [item.size_right for item in items],
            "colour": [item.colour_right for item in items if item.colour_right is not None],
        }
        found |= {f"{name}{suffix}": _share(given) for name, given in answers.items() if given}
        found[f"attributes{suffix}"] = _share(answer for given in answers.values() for answer in given)
    return found


def _breakdowns(records: Sequence[PictureRecord]) -> Metrics:
    """Where the base fails: by number of objects, colour, shape and size."""
    found: Metrics = {}
    for number in (1, 2, 3):
        some = [record for record in records if len(record.objects) == number]
        for name, estimate in _attributes(some).items() if some else ():
            found[f"with_{number}.{name}"] = estimate
    items = [item for record in records for item in record.objects]
    ways: dict[str, Callable[[ObjectMarks], tuple[str, bool]]] = {
        "colour": lambda item: (item.colour, bool(item.colour_right)),
        "shape": lambda item: (item.shape, item.shape_right),
        "size": lambda item: (item.size, item.size_right),
    }
    for name, look in ways.items():
        answers: dict[str, list[bool]] = {}
        for item in items:
            value, right = look(item)
            answers.setdefault(value, []).append(right)
        found |= {f"{name}.{value}": _share(answers[value]) for value in sorted(answers)}
    return found


def _floors(records: Sequence[PictureRecord]) -> Metrics:
    """How well pictures drawn without a ControlNet follow control images by chance."""
    kinds = {kind for record in records for kind in record.adherence}
    return {
        f"floor.{kind}": mean_of([record.adherence[kind] for record in records if kind in record.adherence])
        for kind in sorted(kinds)
    }
