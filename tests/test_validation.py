from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

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


class Bounded(BaseModel):
    key: Annotated[str, Field(min_length=8)] = "12345678"
    name: Annotated[str, Field(min_length=1)] = "x"
    size: Annotated[str, Field(pattern=r"^\d+x\d+$")] = "1x1"
    format: Literal["png"] = "png"
    curve: Annotated[tuple[int, ...], Field(min_length=2)] = (1, 2)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"key": "abc"}, "key is 'abc', but must be a string of at least 8 characters"),
        ({"name": ""}, "name is '', but must be a string that is not empty"),
        ({"size": "8by8"}, r"size is '8by8', but must be a string that matches ^\d+x\d+$"),
        ({"format": "gif"}, "format is 'gif', but must be 'png'"),
        ({"curve": (1,)}, "curve is (1,), but must be a list of at least 2 values"),
    ],
)
def test_what_would_be_right_is_a_phrase_that_ends_the_sentence(values: object, sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Bounded.model_validate(values)
    assert describe(caught.value, Bounded) == sentence


def test_a_secret_is_not_told() -> None:
    with pytest.raises(ValidationError) as caught:
        Bounded.model_validate({"key": "s3cret"})
    sentence = describe(caught.value, Bounded, secret=("key",))
    assert sentence == "key must be a string of at least 8 characters"
