"""Owns how values from outside are validated: strictly, and with complaints that say what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

# What a value should have been, by pydantic's error type.
_ALLOWED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a table of names and values",
    "model_type": "an object with named fields",
    "model_attributes_type": "an object with named fields",
}
# The same for types that carry a bound: the phrase and the name of the bound.
_BOUNDS = {
    "greater_than_equal": ("at least {}", "ge"),
    "greater_than": ("greater than {}", "gt"),
    "less_than_equal": ("at most {}", "le"),
    "less_than": ("less than {}", "lt"),
    "string_too_long": ("a string of at most {} characters", "max_length"),
    "string_too_short": ("a string of at least {} characters", "min_length"),
    "string_pattern_mismatch": ("a string that matches {}", "pattern"),
    "too_short": ("a list of at least {} values", "min_length"),
    "literal_error": ("one of {}", "expected"),
    "value_error": ("{}", "error"),
}


class StrictModel(BaseModel):
    """A frozen model that takes no value of another type, no unknown field, no NaN and no infinity."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def describe(
    error: ValidationError, model: type[BaseModel], *, whole: str = "the line", secret: Collection[str] = ()
) -> str:
    """Return the first problem of ``error`` as a sentence without a full stop, such as
    ``seed is 'a', but must be an integer``, and how many further problems there are.

    Args:
        error: What pydantic raised while it validated ``model``.
        model: The model; its field names are listed when a field is unknown.
        whole: What is wrong if it is none of the fields.
        secret: Fields whose values are not told.
    """
    problems = error.errors(include_url=False)
    sentence = _describe_one(problems[0], model, whole, secret)
    if len(problems) > 1:
        sentence += f" (and {len(problems) - 1} more problem{'s' if len(problems) > 2 else ''} here)"
    return sentence


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return ``unknown field 'sede'; did you mean 'seed'? known: ...``."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {kind} {_shorten(name)}{hint} known: {', '.join(names)}"


def _describe_one(problem: ErrorDetails, model: type[BaseModel], whole: str, secret: Collection[str]) -> str:
    field = path_of(problem["loc"])
    kind = problem["type"]
    if kind == "extra_forbidden":
        owner = _model_at(model, problem["loc"][:-1])
        parent = path_of(problem["loc"][:-1])
        inside = f" in {parent}" if parent else ""
        return unknown_name("field", str(problem["loc"][-1]), owner.model_fields) + inside
    if kind == "missing":
        return f"field {field} is missing"
    if kind == "json_invalid":
        reason = problem.get("ctx", {}).get("error", problem["msg"])
        return f"not valid JSON: {reason.replace(' line 1 column ', ' character ')}"
    allowed = _ALLOWED.get(kind) or _allowed_from_context(kind, problem)
    if field in secret:
        return f"{field} must be {allowed}"
    return f"{field or whole} is {_shorten(problem['input'])}, but must be {allowed}"


def _allowed_from_context(kind: str, problem: ErrorDetails) -> str:
    context: dict[str, Any] = problem.get("ctx", {})
    if kind == "string_too_short" and context["min_length"] == 1:
        return "a string that is not empty"
    if kind == "literal_error" and " or " not in context["expected"]:
        return str(context["expected"])
    if kind in _BOUNDS:
        phrase, key = _BOUNDS[kind]
        bound = context[key]
        return phrase.format(f"{bound:g}" if isinstance(bound, float) else bound)
    message = problem["msg"]
    return message[:1].lower() + message[1:]


def _model_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    """Follow a location such as ``("controlnets", 0)`` to the model that lies there."""
    for step in loc:
        if isinstance(step, int) or step not in model.model_fields:
            continue
        annotation = model.model_fields[step].annotation
        candidates = (annotation, *getattr(annotation, "__args__", ()))
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return model


def path_of(loc: tuple[int | str, ...]) -> str:
    """Return a place in a model as errors name it: ``loras[0].scale``."""
    text = ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _shorten(value: object, limit: int = 80) -> str:
    shown = repr(value)
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
