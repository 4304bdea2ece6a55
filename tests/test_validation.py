from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from swiftdiff.validation import describe, unknown_name


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    depth: int = 0


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"inner": {"dept": 1}}, "unknown field 'dept'; did you mean 'depth'? known: depth in inner"),
        ({"many": [{}, {"x": 1}]}, "unknown field 'x'; known: depth in many[1]"),
        ({"x": 1}, "unknown field 'x'; known: inner, many"),
    ],
)
def test_an_unknown_field_is_answered_with_the_fields_of_its_own_place(values: object, sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    assert describe(caught.value, Outer) == sentence


def test_a_near_name_is_suggested_only_when_there_is_one() -> None:
    assert unknown_name("style", "neom", ["neon", "night"]).startswith(
        "unknown style 'neom'; did you mean 'neon'?"
    )
    assert unknown_name("style", "zzz", ["neon"]) == "unknown style 'zzz'; known: neon"
